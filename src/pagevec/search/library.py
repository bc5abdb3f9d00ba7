"""A store of documents as a service has it: shown, searched and added to while it runs.

All methods block, and may be called from several threads.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from pagevec.errors import DocumentError, Forbidden, NotFound
from pagevec.images import read_image
from pagevec.ingest.boundary import open_document
from pagevec.ingest.catalogue import Catalogue, StoredDocument
from pagevec.ingest.names import Names, hash_file, name_documents
from pagevec.ingest.queue import IngestionQueue
from pagevec.ingest.sources import find_documents
from pagevec.ingest.uploads import Incoming, Uploads
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.local import LocalIndex
from pagevec.search.results import Hit
from pagevec.stores.base import Store
from pagevec.stores.fingerprint import FINGERPRINT_TEXT, check_model
from pagevec.types import Model, Page, PageKey, Query
from pagevec.wire.documents import name_of

State = Literal["waiting", "ingesting", "complete", "incomplete", "failed"]

_KEPT_BYTES = 64 << 20  # of pictures that were drawn
_KEPT_HASHES = 4096
_AT_WORK = ("waiting", "ingesting")


@dataclass(frozen=True)
class DocumentState:
    """A document as it is now.

    Attributes:
        name: its name.
        state: complete: all pages can be found; incomplete: some are missing; failed: all are.
        stored: pages of it that can be found.
        pages: pages that it has; None where that is not known.
        error: why it failed, which pages are missing, or why it is not ingested yet.
        is_upload: whether its file was uploaded, and is kept here.
    """

    name: str
    state: State
    stored: int
    pages: int | None
    error: str | None
    is_upload: bool

    @property
    def is_at_work(self) -> bool:
        """Whether its state will change by itself."""
        return self.state in _AT_WORK


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        content: a JPEG file.
        reason: why it is the small picture in the store; None where it was drawn from the file.
    """

    content: bytes
    reason: str | None = None


@dataclass(frozen=True)
class Stock:
    """What a library has, and what it is doing.

    Attributes:
        documents: how many.
        pages: how many can be found.
        at_work: documents that wait, or are being ingested.
        pages_per_second: of the last minute; None if there were none.
    """

    documents: int
    pages: int
    at_work: int
    pages_per_second: float | None = None


class Library:
    """The documents of one store, and its uploads if it takes any.

    Args:
        store: with the pages; closed with the library.
        model: embeds pages; it stays open.
        uploads: the folder of uploaded files; None where documents are only read.
        max_pages: of one uploaded document.

    Raises:
        OtherModel: the pages in the store were embedded by another model.
    """

    def __init__(
        self, store: Store, model: Model, uploads: Uploads | None = None, max_pages: int = 2000
    ) -> None:
        if store.fingerprint() is not None:
            [made] = model.embed_texts([FINGERPRINT_TEXT])
            check_model(store, made)
        self._store = store
        self._index = LocalIndex(store, model)
        self._worker = Worker(store, model)
        self._expected = set[str]()  # documents of `add` that are still to be ingested
        self._closed = threading.Event()
        self._catalogue = Catalogue(store)
        self._uploads = uploads
        self._queue = IngestionQueue(store, model, uploads, max_pages) if uploads else None
        self._pictures = _Pictures()
        self._hashes = _Hashes()

    @property
    def takes_uploads(self) -> bool:
        """Whether documents can be added and removed."""
        return self._uploads is not None

    def search(
        self,
        query: Query,
        k: int,
        documents: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Return the `k` pages that answer `query` best, as `Index.search` does."""
        return self._index.search(query, k, documents=documents, metadata=metadata)

    def documents(self, part: str = "") -> list[DocumentState]:
        """Return the documents whose names have `part` in them, by name; its case is ignored."""
        known = {one.name: self._describe(one) for one in self._catalogue.list()}
        for name in self._waiting():
            known.setdefault(name, self._describe(_not_stored(name)))
        wanted = part.casefold()
        return [known[name] for name in sorted(known) if wanted in name.casefold()]

    def document(self, name: str) -> DocumentState:
        """Return the document `name`.

        Raises:
            NotFound: there is none.
        """
        stored = self._catalogue.describe(name)
        if stored is None and name not in self._waiting():
            raise NotFound(f"there is no document {name!r}")
        return self._describe(stored or _not_stored(name))

    def receive(self, filename: str) -> Incoming:
        """Begin to receive an upload; see `Uploads.receive`."""
        return self._need_uploads().receive(filename)

    def accept(self, incoming: Sequence[Incoming]) -> list[str]:
        """Keep uploads that were received, let them be ingested, return their documents' names."""
        accepted = self._need_uploads().accept(incoming)
        if self._queue is not None:
            self._queue.notice()
        return [upload.name for upload in accepted]

    def are_waiting(self, names: Sequence[str]) -> bool:
        """Whether one of the uploads `names` is still to be ingested."""
        return self._uploads is not None and any(map(self._uploads.waiting_for, names))

    def name(self, document: str) -> str:
        """Return the name of a document that is given by its id or its name."""
        with suppress(NotFound):
            name = name_of(document)
            if self._store.ledger.record(name) is not None or self._store.has(name):
                return name
        return document

    def add(self, paths: Sequence[Path]) -> list[Outcome]:
        """Ingest documents of this machine, until the library is closed."""
        documents = name_documents(find_documents(paths), self._store)
        self._expected = {one.name for one in documents}
        return self._worker.ingest(
            documents,
            on_outcome=lambda outcome: self._expected.discard(outcome.document),
            stopped=self._closed,
        )

    def remove(self, name: str) -> int:
        """Remove a document, and its file if it was uploaded; return how many pages it had.

        Raises:
            NotFound: there is no such document.
            InvalidRequest: another program wrote it.
            QueueFull: it is being ingested, and could not be stopped in time.
        """
        uploads = self._need_uploads()
        was = self.document(name)
        if was.is_upload:
            uploads.forget(name)
        if self._queue is not None:
            self._queue.stop(name)
        pages = self._catalogue.remove(name) if self._catalogue.describe(name) else 0
        if was.is_upload:
            uploads.forget(name)  # its file, which no record needs any more
        return pages

    def page(self, name: str, number: int) -> Page:
        """Return a page with everything that is stored of it.

        Raises:
            NotFound: it is not in the store.
        """
        found = self._store.fetch([PageKey(name, number)])
        if not found:
            raise NotFound(f"there is no page {number} of {name!r}")
        return found[0]

    def draw(self, name: str, number: int, width: int | None) -> Picture:
        """Return a picture of a page: from its document's file if that is unchanged.

        Args:
            name: of the document.
            number: of the page.
            width: pixels at most; None for as large as it is drawn.

        Raises:
            NotFound: the page is not in the store, or has no picture.
        """
        file = Names.read(self._store).path(name)
        record = self._store.ledger.record(name)
        content_hash = record.content_hash if record else None
        key = (name, number, content_hash, width)
        reason = self._reason_not_to_draw(file, content_hash)
        drawn = self._pictures.get(key)
        if drawn is not None and reason is None:
            return drawn
        page = self.page(name, number)
        if page.thumbnail is None:
            raise NotFound(f"{name}, page {number}: there is no picture of it, it is a text")
        if reason is not None:
            return Picture(page.thumbnail, reason)
        try:
            with open_document(file) as pages:
                made = pages.make(number).content
        except (DocumentError, OSError) as error:
            return Picture(page.thumbnail, f"the page cannot be drawn again: {error}")
        if isinstance(made, str):
            return Picture(page.thumbnail, "the file has changed since it was ingested")
        picture = Picture(_as_jpeg(made, width))
        self._pictures.put(key, picture)
        return picture

    def stock(self) -> Stock:
        """Return what there is, and what is being done."""
        counts = self._store.documents()
        names = {*counts, *(one.name for one in self._store.ledger.records())}
        waiting = self._waiting()
        rate = self._queue.pages_per_second() if self._queue else None
        return Stock(len(names | waiting), sum(counts.values()), len(waiting), rate)

    def count_waiting(self) -> int:
        """Return how many documents wait, or are being ingested."""
        return len(self._waiting())

    def pages_done(self) -> int:
        """Return how many pages of uploads were done since the start."""
        return self._queue.pages_done if self._queue else 0

    def close(self) -> None:
        """Stop ingesting, which the next start goes on with, and close the store."""
        self._closed.set()
        if self._queue is not None:
            self._queue.close()
        if self._uploads is not None:
            self._uploads.close()
        self._store.close()

    def _reason_not_to_draw(self, file: Path, content_hash: str | None) -> str | None:
        """Return why pages cannot be drawn from `file`; None if they can."""
        try:
            is_same = self._hashes.of(file) == content_hash
        except OSError:
            return "the file of the document is gone"
        return None if is_same else "the file has changed since it was ingested"

    def _waiting(self) -> set[str]:
        """Return the names of documents that are still to be ingested, or are being ingested."""
        uploads = self._uploads.waiting() if self._uploads else ()
        return {*self._expected, *(upload.name for upload in uploads)}

    def _need_uploads(self) -> Uploads:
        if self._uploads is None:
            raise Forbidden(
                "this service shows and searches its documents only: `pagevec serve --uploads` "
                "lets callers add and remove some"
            )
        return self._uploads

    def _describe(self, stored: StoredDocument) -> DocumentState:
        name, pages, error = stored.name, stored.pages, stored.error
        is_upload = self._uploads is not None and self._uploads.holds(name)
        job = self._queue.job(name) if self._queue else None
        if job is not None:
            state: State = "ingesting"
            pages, error = pages or job.total, None
        elif not stored.complete and name in self._expected:
            state = "ingesting" if pages else "waiting"
        elif self._uploads is not None and self._uploads.waiting_for(name):
            state, error = "waiting", self._queue.fault(name) if self._queue else None
        elif stored.complete:
            state = "complete"
        elif error is None:
            state = "ingesting"  # elsewhere, or it was killed and nobody goes on with it yet
        else:
            state = "incomplete" if stored.stored else "failed"
        return DocumentState(name, state, stored.stored, pages, error, is_upload)


def _not_stored(name: str) -> StoredDocument:
    return StoredDocument(name, stored=0, pages=None, complete=False)


def _as_jpeg(content: bytes, width: int | None) -> bytes:
    image = read_image(content).decode()
    if width is not None and image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), reducing_gap=3)
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


class _Pictures:
    """Pictures that were drawn lately, up to some bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> Picture | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[object, ...], picture: Picture) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture.content)
            while self._bytes > _KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.content)


class _Hashes:
    """Content hashes of files, computed again only after a file has changed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, file: Path) -> str:
        """Return the SHA-256 of the file's content.

        Raises:
            OSError: there is none.
        """
        found = file.stat()
        version = (os.fspath(file), found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            known = self._kept.get(version)
        if known is None:
            known = hash_file(file)
            with self._lock:
                self._kept[version] = known
                if len(self._kept) > _KEPT_HASHES:
                    self._kept.popitem(last=False)
        return known
