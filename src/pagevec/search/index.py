"""Documents in, answers with their place on the page out: a store and a model as one index."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pagevec.errors import InvalidRequest
from pagevec.ingest.leases import LEASE_SECONDS
from pagevec.ingest.names import Names, name_documents
from pagevec.ingest.sources import open_document
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.retriever import Retriever
from pagevec.search.similarity_maps import PageMaps, map_similarities
from pagevec.stores import open_store
from pagevec.stores.base import Filter, Store
from pagevec.types import DocumentRecord, Model, Page, Progress, Query

if TYPE_CHECKING:
    from PIL import Image

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Report:
    """What became of documents that were added.

    Attributes:
        outcomes: one for each document.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def pages_stored(self) -> int:
        """Pages that were stored now."""
        return sum(outcome.stored for outcome in self.outcomes)

    @property
    def skipped(self) -> tuple[Outcome, ...]:
        """Documents that were complete in the store already."""
        return tuple(outcome for outcome in self.outcomes if outcome.skipped)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Documents that failed; their `error` says why."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)


@dataclass(frozen=True, eq=False)
class Hit:
    """A page that answers a query.

    Attributes:
        document: name of the document.
        page: number of the page, from 1.
        score: exact MaxSim: the sum over the query's vectors of their highest cosine with one of
            the page's.
        path: where the document's file is, or was.
    """

    document: str
    page: int
    score: float
    path: Path
    _page: Page = field(repr=False)
    _query: Query = field(repr=False)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of the page."""
        return self._page.metadata

    @property
    def text(self) -> str | None:
        """The page's text layer, or the text itself; None where it has none."""
        return self._page.text

    @property
    def thumbnail(self) -> bytes | None:
        """A small JPEG of the page; None for a text."""
        return self._page.thumbnail

    def maps(self) -> PageMaps:
        """Return where on the page the words of the query find their answer.

        Raises:
            InvalidRequest: the page has no patch grid: it is a text, its vectors are pooled, or
                the model cuts pages into tiles.
        """
        return map_similarities(self._query, self._page)

    def picture(self) -> "Image.Image":
        """Return the picture of the page: from its file, else the thumbnail.

        Raises:
            InvalidRequest: the page has neither.
        """
        from PIL import Image

        picture = self.thumbnail
        try:
            with open_document(self.path) as pages:
                content = pages.make(self.page).content
            if isinstance(content, bytes):
                picture = content
        except (InvalidRequest, OSError):
            pass  # the file is gone: the small picture in the store has to do
        if picture is None:
            raise InvalidRequest(f"{self.document}, page {self.page}: there is no picture of it")
        return Image.open(BytesIO(picture)).convert("RGB")


class Index:
    """A store of documents, searched with the model that embeds their pages.

    Args:
        store: a folder (made where it is missing), `postgresql://...`, or an open store, which
            stays open when the index is closed.
        model: embeds pages and queries: `pagevec.load(...)` or `pagevec.Client(...)`; it stays
            open, too.
        lease_seconds: how long other workers wait before they take over the documents of one
            that was killed.

    Raises:
        StoreError: the store cannot be opened.

    >>> with Index("./pagevec-store", model) as index:  # doctest: +SKIP
    ...     index.add(["reports/", "scan.png"])
    ...     hits = index.search("night route passengers", k=5)
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        model: Model,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._owns_store = isinstance(store, str | os.PathLike)
        self._store: Store
        if isinstance(store, str | os.PathLike):
            self._store = open_store(os.fspath(store))
        else:
            self._store = store
        self._worker = Worker(self._store, model, lease_seconds=lease_seconds)
        self._retriever = Retriever(model, self._store)

    def add(
        self,
        paths: Paths,
        *,
        label: str | None = None,
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> Report:
        """Ingest documents: embed their pages and store them. What is stored already is skipped.

        A document that fails stops no other. Killed at any moment and called again, this goes on
        where it stopped.

        Args:
            paths: files, and folders with all documents below them.
            label: first part of the names of new documents; default: their folder's own name.
            on_progress: called with the pages stored and the pages known so far.
            on_outcome: called with the outcome of each document as it comes.

        Returns:
            What became of each document.

        Raises:
            InvalidRequest: a path does not exist or is of an unsupported type, or the store knows
                the label from another folder.
            StoreError: the pages in the store were embedded by another model.
        """
        documents = name_documents(_as_paths(paths), self._store, label)
        return Report(tuple(self._worker.ingest(documents, on_progress, on_outcome)))

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        documents: Sequence[str | os.PathLike[str]] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Return the `k` pages that answer `query` best, the best first.

        Args:
            query: in words.
            k: how many pages at most.
            documents: only pages of these documents: names, or paths of their files.
            metadata: only pages whose metadata has these values.

        Raises:
            InvalidRequest: the store has no such document.
            StoreError: the pages were embedded by another model.
        """
        names = Names.read(self._store)
        where = Filter(frozenset(self._find(names, one) for one in documents), metadata or {})
        embedded = self._retriever.embed(query)
        found = self._retriever.search_vectors(embedded.vectors, k, where)
        pages = {page.key: page for page in self._store.fetch([one.key for one in found])}
        return [
            Hit(key.document, key.number, one.score, names.path(key.document), pages[key], embedded)
            for one in found
            if (key := one.key) in pages  # another process may have removed it meanwhile
        ]

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had. Its file stays where it is.

        Args:
            document: its name, or the path of its file.

        Raises:
            InvalidRequest: the store has no such document.
        """
        return self._store.delete(self._find(Names.read(self._store), document))

    def remove_missing(self, folders: Paths) -> list[str]:
        """Remove the documents below `folders` whose files are gone; return their names."""
        names = Names.read(self._store)
        places = [path.resolve() for path in _as_paths(folders) if path.is_dir()]
        files = {one.name: names.path(one.name) for one in self._store.ledger.records()}
        gone = [
            name
            for name, file in files.items()
            if any(map(file.is_relative_to, places)) and not file.exists()
        ]
        for name in gone:
            self._store.delete(name)
        return gone

    def documents(self) -> list[DocumentRecord]:
        """Return what the store knows of its documents, by name."""
        return self._store.ledger.records()

    def close(self) -> None:
        """Close the store, unless it was handed over open. The model stays open."""
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _find(self, names: Names, document: str | os.PathLike[str]) -> str:
        given = os.fspath(document)
        name = given if self._has(given) else names.known_name(Path(given))
        if name is None:
            raise InvalidRequest(f"the store has no document {given!r}; give its name or its path")
        return name

    def _has(self, name: str) -> bool:
        # morphik-core's documents are not in the ledger.
        return self._store.ledger.record(name) is not None or bool(self._store.has(name))


def _as_paths(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(one) for one in paths]
