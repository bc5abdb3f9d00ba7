"""The ingestion worker: documents go through an embedder into a store, each page once.

Killed at any moment and started again, it goes on where it was: a page is in the store or it is
not, the ledger knows each document by the hash of its content, and a document counts as complete
only after its last page was stored.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx

from pagevec.errors import PagevecError
from pagevec.grid import PageResizing
from pagevec.ingest.leases import CLAIM_SECONDS, Claims
from pagevec.ingest.page import Pages, SourcePage, stored_page
from pagevec.ingest.pipeline import in_order
from pagevec.ingest.sources import open_document
from pagevec.stores.base import DocumentStore
from pagevec.stores.fingerprint import PROBE_TEXT, agree_on_model
from pagevec.types import DocumentRecord, MultiVector, Page

log = logging.getLogger(__name__)

# Pages of one request and of one transaction: a killed worker loses no more than these.
_BATCH = 8
# Documents under work at once, so that files of one page keep the service as busy as long ones.
_DOCUMENTS_AT_ONCE = 4

OnPages = Callable[[int], None]


class Embeds(Protocol):
    """What turns pages into multi-vectors, such as `pagevec.client.Client`."""

    def embed_images(self, images: Sequence[bytes]) -> list[MultiVector]:
        """Return one multi-vector for each image file, in order."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        """Return one multi-vector for each text, in order."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a document: pages that were stored now, and why it failed, if it did."""

    document: str
    stored: int = 0
    skipped: bool = False
    error: str | None = None


class Worker:
    """Takes documents into a store. Several workers may share one."""

    def __init__(
        self,
        store: DocumentStore,
        embedder: Embeds,
        resizing: PageResizing | None = None,
        *,
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        """Use `resizing`, which the service tells, to note each page's patch grid.

        A worker that was killed gives up its documents to others after `claim_seconds`.
        """
        self._store = store
        self._embedder = embedder
        self._resizing = resizing
        self._claim_seconds = claim_seconds

    def ingest(
        self, documents: Iterable[Path], on_pages: OnPages = lambda count: None
    ) -> Iterator[Outcome]:
        """Ingest `documents`, some at once; yield what became of each. Stops at no failure.

        Documents that another worker has are waited for: when this ends, all are complete or
        failed. `on_pages` is told of pages as they come: negative numbers are pages to be done.

        Raises:
            StoreError: the store has pages of another model.
        """
        [probe] = self._embedder.embed_texts([PROBE_TEXT])
        agree_on_model(self._store, probe)
        with Claims(self._store, self._claim_seconds) as claims:
            left = yield from self._ingest_all(documents, claims, on_pages)
            while left:
                time.sleep(min(1.0, self._claim_seconds / 2))
                left = yield from self._ingest_all(left, claims, on_pages)

    def _ingest_all(
        self, documents: Iterable[Path], claims: Claims, on_pages: OnPages
    ) -> Generator[Outcome, None, list[Path]]:
        """Return the documents that other workers have."""
        left = []
        with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE, "pagevec-document") as pool:
            tasks = (partial(self._try, document, claims, on_pages) for document in documents)
            for document, outcome in in_order(pool, tasks, ahead=2 * _DOCUMENTS_AT_ONCE):
                if outcome is None:
                    left.append(document)
                else:
                    yield outcome
        return left

    def forget_missing(self, below: Sequence[Path]) -> list[str]:
        """Remove documents from the store whose files under the folders `below` are gone."""
        gone = [
            record.name
            for record in self._store.records()
            if any(Path(record.name).is_relative_to(folder.resolve()) for folder in below)
            and not Path(record.name).exists()
        ]
        for name in gone:
            self._store.delete(name)
        return gone

    def _try(
        self, document: Path, claims: Claims, on_pages: OnPages
    ) -> tuple[Path, Outcome | None]:
        """Return None for a document that another worker has."""
        name = name_of(document)
        try:
            with claims.claimed(name) as is_mine:
                return document, self._ingest(document, name, on_pages) if is_mine else None
        except (PagevecError, httpx.HTTPError, OSError) as error:
            log.error("%s: %s", name, error)
            self._note_failure(name, str(error))
            return document, Outcome(name, error=str(error))

    def _ingest(self, document: Path, name: str, on_pages: OnPages) -> Outcome:
        content_hash = hash_of(document)
        known = self._store.record(name)
        if known is not None and known.content_hash == content_hash and known.complete:
            return Outcome(name, skipped=True)
        if known is not None and known.content_hash != content_hash:
            self._store.delete(name)  # the file has changed: none of its old pages may stay
        with open_document(document) as pages:
            record = DocumentRecord(name, content_hash, pages.count)
            self._store.write(record)
            stored = self._store_missing(name, pages, on_pages)
        self._store.write(replace(record, complete=True))
        log.info("%s: %d pages stored", name, stored)
        return Outcome(name, stored)

    def _store_missing(self, name: str, pages: Pages, on_pages: OnPages) -> int:
        there = self._store.has(name)
        missing = [number for number in range(1, pages.count + 1) if number not in there]
        on_pages(-len(missing))
        batches = [missing[i : i + _BATCH] for i in range(0, len(missing), _BATCH)]
        with (
            ThreadPoolExecutor(1, "pagevec-render") as rendering,
            ThreadPoolExecutor(2, "pagevec-embed") as embedding,
        ):
            sources = (rendering.submit(_made, pages, batch) for batch in batches)
            tasks = (partial(self._embedded, name, source) for source in sources)
            for batch in in_order(embedding, tasks, ahead=3):
                self._store.add(batch)
                on_pages(len(batch))
        return len(missing)

    def _embedded(self, name: str, made: Future[list[SourcePage]]) -> list[Page]:
        sources = made.result()
        contents = [source.content for source in sources]
        if all(isinstance(content, str) for content in contents):
            vectors = self._embedder.embed_texts([str(content) for content in contents])
        else:
            vectors = self._embedder.embed_images([c for c in contents if isinstance(c, bytes)])
        return [
            stored_page(name, source, one, self._resizing)
            for source, one in zip(sources, vectors, strict=True)
        ]

    def _note_failure(self, name: str, error: str) -> None:
        known = self._store.record(name) or DocumentRecord(name, content_hash="")
        self._store.write(replace(known, error=error))


def _made(pages: Pages, numbers: list[int]) -> list[SourcePage]:
    return [pages.make(number) for number in numbers]


def name_of(document: Path) -> str:
    """Return the name of a document in page keys: its absolute path."""
    return str(document.resolve())


def hash_of(document: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with document.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
