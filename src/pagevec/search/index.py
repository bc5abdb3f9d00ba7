"""Documents in, answers with their place on the page out: a store and a model as one index."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pagevec.errors import InvalidRequest, PagevecError
from pagevec.ingest import LEASE_SECONDS
from pagevec.ingest.boundary import open_document
from pagevec.ingest.catalogue import Catalogue, Removal, StoredDocument
from pagevec.ingest.names import Names, hash_file, name_documents
from pagevec.ingest.page import ReadOptions
from pagevec.ingest.sources import find_documents
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
        passed_over: what was not taken for a document, one sentence for each reason.
        renamed: former names of documents whose files have other names now.
    """

    outcomes: tuple[Outcome, ...]
    passed_over: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()

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
        """Documents that failed, or of which pages are missing; their `error` says why."""
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
        error: what is missing of its document, where something is.
    """

    document: str
    page: int
    score: float
    path: Path
    error: str | None
    _content_hash: str | None = field(repr=False)
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
        """Return the picture of the page: from its file if that is unchanged, else the thumbnail.

        Raises:
            InvalidRequest: the page has neither.
            InvalidImage: the thumbnail in the store is damaged.
        """
        from pagevec.images import read_image

        picture = self._draw_again() or self.thumbnail
        if picture is None:
            raise InvalidRequest(f"{self.document}, page {self.page}: there is no picture of it")
        return read_image(picture).decode()

    def _draw_again(self) -> bytes | None:
        """Return an image file of the page as it is now; None if its file has changed."""
        try:
            if hash_file(self.path) != self._content_hash:
                return None
            with open_document(self.path) as pages:
                content = pages.make(self.page).content
        except (PagevecError, OSError):
            return None
        return content if isinstance(content, bytes) else None


class Index:
    """A store of documents, searched with the model that embeds their pages.

    Args:
        store: a folder, `postgresql://...`, or an open store, which stays open when the index is
            closed.
        model: embeds pages and queries: `pagevec.load(...)` or `pagevec.Client(...)`; it stays
            open, too.
        lease_seconds: how long other workers wait before they take over the documents of one
            that was killed.
        passwords: tried on encrypted documents, in this order.
        create: whether a store in a folder is made if there is none.

    Raises:
        StoreError: the store cannot be opened, or is not there and shall not be made.

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
        passwords: Sequence[str] = (),
        create: bool = True,
    ) -> None:
        self._owns_store = isinstance(store, str | os.PathLike)
        self._store: Store
        if isinstance(store, str | os.PathLike):
            self._store = open_store(os.fspath(store), create=create)
        else:
            self._store = store
        options = ReadOptions(passwords=tuple(passwords))
        self._worker = Worker(self._store, model, lease_seconds=lease_seconds, options=options)
        self._retriever = Retriever(model, self._store)
        self._catalogue = Catalogue(self._store)

    def add(
        self,
        paths: Paths,
        *,
        label: str | None = None,
        follow_links: bool = False,
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> Report:
        """Ingest documents: embed their pages and store them. What is stored already is skipped.

        A page that fails costs that page, a document that fails stops no other. Killed at any
        moment and called again, this goes on where it stopped. A renamed file keeps its pages, and
        the same content under two names is embedded once.

        Args:
            paths: files, and folders with all documents below them.
            label: first part of the names of new documents; default: their folder's own name.
            follow_links: whether links in a folder that lead out of it are followed.
            on_progress: called with the pages stored and the pages known so far.
            on_outcome: called with the outcome of each document as it comes.

        Returns:
            What became of each document.

        Raises:
            InvalidRequest: a path does not exist or is of an unsupported type, or the store knows
                the label from another folder.
            StoreError: the pages in the store were embedded by another model.
        """
        found = find_documents(_as_paths(paths), follow_links=follow_links)
        documents = name_documents(found, self._store, label)
        outcomes = self._worker.ingest(documents, on_progress, on_outcome)
        twins = {outcome.same_as for outcome in outcomes if outcome.same_as is not None}
        renamed = self._catalogue.prune(_as_paths(paths), twins).removed if twins else ()
        passed_over = (*found.describe(), *found.describe_links())
        return Report(tuple(outcomes), passed_over, renamed)

    def search(
        self,
        query: str | Query,
        k: int = 10,
        *,
        documents: Sequence[str | os.PathLike[str]] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Return the `k` pages that answer `query` best, the best first.

        Args:
            query: in words, or embedded already.
            k: how many pages at most.
            documents: only pages of these documents: names, or paths of their files; a folder
                stands for all documents below it.
            metadata: only pages whose metadata has these values.

        Raises:
            InvalidRequest: the store has no such document, or no page has such metadata.
            StoreError: the pages were embedded by another model.
        """
        names = Names.read(self._store)
        chosen = chain.from_iterable(map(self._catalogue.find_all, documents))
        where = Filter(frozenset(chosen), metadata or {})
        embedded = query if isinstance(query, Query) else self._retriever.embed(query)
        found = self._retriever.search_vectors(embedded.vectors, k, where)
        if not found and metadata:
            self._check_metadata(metadata)
        pages = {page.key: page for page in self._store.fetch([one.key for one in found])}
        records = {one.key.document: self._store.ledger.record(one.key.document) for one in found}
        return [
            _make_hit(one.score, pages[one.key], records[one.key.document], names, embedded)
            for one in found
            if one.key in pages  # another process may have removed it meanwhile
        ]

    def _check_metadata(self, wanted: Mapping[str, Any]) -> None:
        known = self._store.metadata_names()
        if unknown := sorted(set(wanted) - known):
            raise InvalidRequest(
                f"no page has metadata named {', '.join(map(repr, unknown))} "
                f"(there are: {', '.join(sorted(known)) or 'none'})"
            )

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had. Its file stays where it is.

        Args:
            document: its name, or the path of its file.

        Raises:
            InvalidRequest: the store has no such document, or another program wrote it.
        """
        return self._catalogue.remove(document)

    def prune(self, paths: Paths) -> Removal:
        """Remove the documents that came from `paths` and whose files are gone.

        Nothing is removed on doubtful evidence: not below a folder that is gone or empty, which
        may be a disk that is not mounted. Other programs' documents are never removed.

        Args:
            paths: folders, and files, as they were added.
        """
        return self._catalogue.prune(_as_paths(paths))

    def documents(self) -> list[StoredDocument]:
        """Return all documents in the store, by name; those of other programs, too."""
        return self._catalogue.list()

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


def _make_hit(
    score: float, page: Page, record: DocumentRecord | None, names: Names, query: Query
) -> Hit:
    return Hit(
        page.key.document,
        page.key.number,
        score,
        names.path(page.key.document),
        record.error if record else None,
        record.content_hash if record else None,
        page,
        query,
    )


def _as_paths(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(one) for one in paths]
