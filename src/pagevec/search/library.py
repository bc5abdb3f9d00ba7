"""A store of documents as a service has it: shown, searched and added to while it runs.

All methods block, and may be called from several threads.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from pagevec.errors import Forbidden, InvalidRequest, NotFound
from pagevec.ingest.catalogue import Catalogue, StoredDocument, unknown_document
from pagevec.ingest.incoming import Incoming
from pagevec.ingest.names import name_documents
from pagevec.ingest.queue import IngestionQueue
from pagevec.ingest.sources import find_documents
from pagevec.ingest.uploads import Uploads
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.fusion import DEFAULT_MIX, Mix
from pagevec.search.local import LocalIndex
from pagevec.search.pictures import PageDrawer, fetch_page
from pagevec.search.results import DocumentState, Hit, Listing, Picture, State, Stock
from pagevec.stores.base import Filter, Store
from pagevec.types import Model, Page, Query
from pagevec.wire.documents import name_of


class Library:
    """The documents of one store, and its uploads if it takes any.

    Args:
        store: with the pages; closed with the library.
        model: embeds pages; it stays open. Who embeds queries with it elsewhere compares it with
            the pages first (`Retriever.check_model`).
        uploads: the folder of uploaded files; None where documents are only read.
        max_pages: of one uploaded document.
    """

    def __init__(
        self, store: Store, model: Model, uploads: Uploads | None = None, max_pages: int = 2000
    ) -> None:
        self._store = store
        self._index = LocalIndex(store, model)
        self._worker = Worker(store, model)
        self._expected = set[str]()  # documents of `add` that are still to be ingested
        self._closed = threading.Event()
        self._catalogue = Catalogue(store)
        self._uploads = uploads
        self._queue = IngestionQueue(store, model, uploads, max_pages) if uploads else None
        self._drawer = PageDrawer(store)

    def embed(self, query: str) -> Query:
        """Embed a query with the library's own model.

        Raises:
            OtherModel: it is not the model that embedded the pages.
        """
        return self._index.retriever.embed(query)

    def search(
        self,
        query: Query,
        k: int,
        documents: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        mix: Mix = DEFAULT_MIX,
    ) -> list[Hit]:
        """Return the `k` pages that answer `query` best, the best first.

        Args:
            query: embedded.
            k: how many pages at most.
            documents: only pages of these: names or ids of documents, or names of folders.
            metadata: only pages whose metadata has these values.
            mix: whether the words of text layers count, too, and how much.

        Raises:
            InvalidRequest: there is no such document, or no page has such metadata.
        """
        where = Filter(self._resolve(documents), metadata or {})
        return self._index.search_embedded(query, k, where, mix)

    def documents(self, part: str = "") -> list[DocumentState]:
        """Return the documents whose names have `part` in them, by name; its case is ignored."""
        uploads = self._waiting_uploads()
        known = {one.name: self._describe(one, uploads) for one in self._catalogue.list()}
        for name in self._waiting():
            known.setdefault(name, self._describe(_not_stored(name), uploads))
        wanted = part.casefold()
        return [known[name] for name in sorted(known) if wanted in name.casefold()]

    def listing(self, part: str, after: str, limit: int) -> Listing:
        """Return some of `documents(part)`.

        Args:
            part: of their names.
            after: a name; those that follow it are returned.
            limit: how many at most.
        """
        found = self.documents(part)
        rest = [one for one in found if one.name > after]
        some = rest[:limit]
        return Listing(some, len(found), some[-1].name if len(rest) > limit else None)

    def find(self, document: str) -> str:
        """Return the name of the document with this id or name.

        Raises:
            InvalidRequest: there is none.
        """
        for name in filter(None, (_name_of(document), document)):
            if self._catalogue.describe(name) is not None:
                return name
        raise unknown_document(document[:200], self._catalogue.list(), "give its id or name")

    def document(self, name: str) -> DocumentState:
        """Return the document `name`.

        Raises:
            NotFound: there is none.
        """
        uploads = self._waiting_uploads()
        stored = self._catalogue.describe(name)
        if stored is None and name not in {*self._expected, *uploads}:
            raise NotFound(f"there is no document {name!r}")
        return self._describe(stored or _not_stored(name), uploads)

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

    def add(self, paths: Sequence[Path]) -> list[Outcome]:
        """Ingest documents of this machine, until the library is closed."""
        documents = name_documents(find_documents(paths), self._store)
        self._expected = {one.name for one in documents}
        try:
            return self._worker.ingest(
                documents,
                on_outcome=lambda outcome: self._expected.discard(outcome.document),
                stopped=self._closed,
            )
        finally:
            self._expected.clear()

    def remove(self, name: str) -> int:
        """Remove a document, and its file if it was uploaded; return how many pages it had.

        Raises:
            NotFound: there is no such document.
            InvalidRequest: another program wrote it.
            QueueFull: it is being ingested, and could not be stopped in time.
        """
        uploads, queue = self._need_uploads(), self._queue
        with queue.holding(name) if queue else nullcontext():
            self.document(name)
            uploads.forget(name)  # what is uploaded from now on waits for the end of this
            if queue is not None:
                queue.stop(name)
            pages = self._catalogue.remove(name) if self._catalogue.describe(name) else 0
            uploads.sweep()
        return pages

    def page(self, name: str, number: int) -> Page:
        """Return a page with everything that is stored of it.

        Raises:
            NotFound: it is not in the store.
        """
        return fetch_page(self._store, name, number)

    def draw(self, name: str, number: int, width: int | None) -> Picture:
        """Return a picture of a page; see `PageDrawer.draw`."""
        return self._drawer.draw(name, number, width)

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
        self._drawer.close()
        self._store.close()

    def _resolve(self, documents: Sequence[str]) -> frozenset[str]:
        """Return the names of the documents that callers mean, who know nothing of paths here."""
        if not documents:
            return frozenset()
        known = {*self._store.documents(), *(one.name for one in self._store.ledger.records())}
        folders = defaultdict[str, set[str]](set)
        for name in known:
            for place in re.finditer("/", name):
                folders[name[: place.start()]].add(name)
        chosen = set[str]()
        for given in documents:
            by_id = _name_of(given)
            if by_id is not None and by_id in known:
                chosen.add(by_id)
            elif given in known:
                chosen.add(given)
            elif below := folders.get(given.rstrip("/")):
                chosen |= below
            else:
                raise InvalidRequest(f"there is no document {given[:200]!r}: give its id or name")
        return frozenset(chosen)

    def _waiting(self) -> set[str]:
        """Return the names of documents that are still to be ingested, or are being ingested."""
        return {*self._expected, *self._waiting_uploads()}

    def _waiting_uploads(self) -> set[str]:
        return {upload.name for upload in self._uploads.waiting()} if self._uploads else set()

    def _need_uploads(self) -> Uploads:
        if self._uploads is None:
            raise uploads_are_off()
        return self._uploads

    def _describe(self, stored: StoredDocument, uploads: set[str]) -> DocumentState:
        """Return the state of a document.

        Args:
            stored: what the store has of it.
            uploads: those that were waiting before the store was read: what no longer waited then
                has its final state there.
        """
        name, pages, error = stored.name, stored.pages, stored.error
        is_upload = self._uploads is not None and self._uploads.holds(name)
        job = self._queue.job(name) if self._queue and name in uploads else None
        if job is not None:
            state: State = "ingesting"
            pages, error = pages or job.total, None
        elif not stored.complete and name in self._expected:
            state = "ingesting" if pages else "waiting"
        elif name in uploads:
            state, error = "waiting", self._queue.fault(name) if self._queue else None
        elif stored.complete:
            state = "complete"
        elif error is None:
            state = "ingesting"  # elsewhere, or it was killed and nobody goes on with it yet
        else:
            state = "incomplete" if stored.stored else "failed"
        return DocumentState(name, state, stored.stored, pages, error, is_upload)


def uploads_are_off() -> Forbidden:
    """Return the error of who would add or remove documents where that is not allowed."""
    return Forbidden(
        "this service only shows and searches its documents: `pagevec serve --uploads` lets "
        "callers add and remove some"
    )


def _name_of(identity: str) -> str | None:
    with suppress(NotFound):
        return name_of(identity)
    return None


def _not_stored(name: str) -> StoredDocument:
    return StoredDocument(name, stored=0, pages=None, complete=False)
