"""The ingestion worker: documents go through a model into a store, each page once.

Killed at any moment and started again, it goes on where it stopped: a page is in the store or it
is not, the ledger knows each document by the hash of its content, and a document counts as
complete only after its last page was stored.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import httpx

from pagevec.errors import PagevecError
from pagevec.grid import PageResizing
from pagevec.ingest.leases import LEASE_SECONDS, Leases
from pagevec.ingest.names import SourceDocument, hash_file
from pagevec.ingest.page import Pages, SourcePage, page_to_store
from pagevec.ingest.sources import open_document
from pagevec.stores.base import Store
from pagevec.stores.fingerprint import FINGERPRINT_TEXT, agree_on_model
from pagevec.types import DocumentRecord, Model, Page, Progress

log = logging.getLogger(__name__)
T = TypeVar("T")

# Pages of one request and of one transaction: a killed worker loses no more than these.
_BATCH = 8
# Documents ingested at once, so that files of one page keep the model as busy as long ones.
_DOCUMENTS_AT_ONCE = 4


@dataclass(frozen=True)
class Outcome:
    """What became of a document.

    Attributes:
        document: its name.
        stored: pages that were stored now.
        skipped: whether it was complete in the store already.
        error: why it failed, where it did.
    """

    document: str
    stored: int = 0
    skipped: bool = False
    error: str | None = None


class Worker:
    """Ingests documents into a store. Several workers may share one store.

    Args:
        store: takes the pages.
        model: embeds them.
        lease_seconds: how long other workers wait before they take over the documents of a
            worker that was killed.
    """

    def __init__(self, store: Store, model: Model, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._store = store
        self._model = model
        self._lease_seconds = lease_seconds

    def ingest(
        self,
        documents: Iterable[SourceDocument],
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> list[Outcome]:
        """Ingest `documents`, some at once, and return what became of each.

        A document that fails stops no other. Documents that another worker holds are waited for:
        when this returns, all of them are complete or have failed.

        Args:
            documents: named documents; see `pagevec.ingest.names`.
            on_progress: called with the pages stored and the pages known so far.
            on_outcome: called with each outcome as it comes.

        Raises:
            StoreError: the pages in the store were embedded by another model.
        """
        [fingerprint] = self._model.embed_texts([FINGERPRINT_TEXT])
        agree_on_model(self._store, fingerprint)
        resizing, progress = self._model.info().resizing, _PageCount(on_progress)
        outcomes: list[Outcome] = []
        left = list(documents)
        with Leases(self._store.ledger, self._lease_seconds) as leases:
            while left:
                ingest = partial(self._ingest_leased, leases, resizing, progress)
                waiting = []
                for document, outcome in _ingest_some_at_once(ingest, left):
                    if outcome is None:
                        waiting.append(document)
                    else:
                        outcomes.append(outcome)
                        on_outcome(outcome)
                left = waiting
                if left:
                    time.sleep(min(1.0, self._lease_seconds / 2))
        return outcomes

    def _ingest_leased(
        self,
        leases: Leases,
        resizing: PageResizing | None,
        progress: "_PageCount",
        document: SourceDocument,
    ) -> tuple[SourceDocument, Outcome | None]:
        """Ingest one document; the outcome is None if another worker holds it."""
        try:
            with leases.hold(document.name) as is_mine:
                return document, self._ingest(document, resizing, progress) if is_mine else None
        except (PagevecError, httpx.HTTPError, OSError) as error:
            log.error("%s: %s", document.name, error)
            self._note_failure(document.name, str(error))
            return document, Outcome(document.name, error=str(error))

    def _ingest(
        self, document: SourceDocument, resizing: PageResizing | None, progress: "_PageCount"
    ) -> Outcome:
        name, ledger = document.name, self._store.ledger
        content_hash, known = hash_file(document.path), ledger.record(name)
        if known is not None and known.content_hash == content_hash and known.complete:
            return Outcome(name, skipped=True)
        if known is not None and known.content_hash != content_hash:
            self._store.delete(name)  # no page of the former version may stay
        with open_document(document.path) as pages:
            record = DocumentRecord(name, content_hash, pages.count)
            ledger.write(record)
            stored = self._store_missing(name, pages, resizing, progress)
        ledger.write(replace(record, complete=True))
        log.info("%s: %d pages stored", name, stored)
        return Outcome(name, stored)

    def _store_missing(
        self, name: str, pages: Pages, resizing: PageResizing | None, progress: "_PageCount"
    ) -> int:
        there = self._store.has(name)
        missing = [number for number in range(1, pages.count + 1) if number not in there]
        progress.expect(len(missing))
        batches = [missing[i : i + _BATCH] for i in range(0, len(missing), _BATCH)]

        def embed(sources: Future[list[SourcePage]]) -> list[Page]:
            return embed_pages(self._model, name, sources.result(), resizing)

        with (
            ThreadPoolExecutor(1, "pagevec-render") as rendering,
            ThreadPoolExecutor(2, "pagevec-embed") as embedding,
        ):
            made = (rendering.submit(_make_pages, pages, batch) for batch in batches)
            tasks = (partial(embed, sources) for sources in made)
            for batch in run_in_order(embedding, tasks, ahead=3):
                self._store.add(batch)
                progress.count(len(batch))
        return len(missing)

    def _note_failure(self, name: str, error: str) -> None:
        ledger = self._store.ledger
        known = ledger.record(name) or DocumentRecord(name, content_hash="")
        ledger.write(replace(known, error=error))


class _PageCount:
    """Pages stored, of all that are known so far, summed over documents of several threads."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._done = self._total = 0
        self._lock = threading.Lock()

    def expect(self, pages: int) -> None:
        with self._lock:
            self._total += pages
            self._report(self._done, self._total)

    def count(self, pages: int) -> None:
        with self._lock:
            self._done += pages
            self._report(self._done, self._total)


def embed_pages(
    model: Model, name: str, sources: Sequence[SourcePage], resizing: PageResizing | None
) -> list[Page]:
    """Embed pages of one document, all images or all texts.

    Args:
        model: embeds them.
        name: of the document.
        sources: the pages.
        resizing: how the model resizes pages, from which follows each page's patch grid.

    Returns:
        A page to store for each of `sources`, in order; vectors float32 (vectors, dim).
    """
    texts = [source.content for source in sources if isinstance(source.content, str)]
    images = [source.content for source in sources if isinstance(source.content, bytes)]
    vectors = model.embed_texts(texts) if texts else model.embed_images(images)
    return [
        page_to_store(name, source, one, resizing)
        for source, one in zip(sources, vectors, strict=True)
    ]


def run_in_order(pool: Executor, tasks: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """Yield the results of `tasks` in their order, with up to `ahead` of them in `pool`.

    `tasks` is read only as far as it is worked on, so memory stays bounded. What a task raises is
    raised in its place, after the tasks behind it were cancelled.
    """
    running: deque[Future[T]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(task))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _ingest_some_at_once(
    ingest: Callable[[SourceDocument], T], documents: Iterable[SourceDocument]
) -> Iterator[T]:
    with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE, "pagevec-document") as pool:
        tasks = (partial(ingest, document) for document in documents)
        yield from run_in_order(pool, tasks, ahead=2 * _DOCUMENTS_AT_ONCE)


def _make_pages(pages: Pages, numbers: Sequence[int]) -> list[SourcePage]:
    return [pages.make(number) for number in numbers]
