"""An index over a store that is opened here, with a model that is asked from here."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pagevec.errors import InvalidRequest, PagevecError
from pagevec.ingest import LEASE_SECONDS
from pagevec.ingest.boundary import open_document
from pagevec.ingest.catalogue import Catalogue, Removal, StoredDocument
from pagevec.ingest.names import Names, hash_file, name_documents
from pagevec.ingest.page import ReadOptions
from pagevec.ingest.sources import find_documents
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.fusion import DEFAULT_MIX, Mix
from pagevec.search.pictures import PageDrawer
from pagevec.search.results import Hit, Paths, Picture, Report, as_places
from pagevec.search.retriever import Retriever
from pagevec.search.similarity_maps import PageMaps, map_similarities
from pagevec.stores import open_store
from pagevec.stores.base import Filter, Store
from pagevec.types import DocumentRecord, Model, Page, Progress, Query, ScoredPage


class LocalIndex:
    """What `Index` is with a store and a model; it takes the same arguments."""

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        model: Model,
        *,
        lease_seconds: float = LEASE_SECONDS,
        passwords: Sequence[str] = (),
        create: bool = True,
        condense: float | None = None,
    ) -> None:
        self._owns_store = isinstance(store, str | os.PathLike)
        self._store: Store
        if isinstance(store, str | os.PathLike):
            self._store = open_store(os.fspath(store), create=create)
        else:
            self._store = store
        options = ReadOptions(passwords=tuple(passwords))
        self._worker = Worker(
            self._store, model, lease_seconds=lease_seconds, options=options, condense=condense
        )
        self.retriever = Retriever(model, self._store)
        self._catalogue = Catalogue(self._store)
        self._drawer = PageDrawer(self._store)

    def add(
        self,
        paths: Paths,
        *,
        label: str | None = None,
        follow_links: bool = False,
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> Report:
        """Ingest documents, as `Index.add` says."""
        found = find_documents(as_places(paths), follow_links=follow_links)
        documents = name_documents(found, self._store, label)
        outcomes = self._worker.ingest(documents, on_progress, on_outcome)
        twins = {outcome.same_as for outcome in outcomes if outcome.same_as is not None}
        renamed = self._catalogue.prune(as_places(paths), twins).removed if twins else ()
        passed_over = (*found.describe(), *found.describe_links())
        return Report(tuple(outcomes), passed_over, renamed)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        documents: Sequence[str | os.PathLike[str]] = (),
        metadata: Mapping[str, Any] | None = None,
        mix: Mix = DEFAULT_MIX,
    ) -> list[Hit]:
        """Return the pages that answer `query`, as `Index.search` says."""
        chosen = chain.from_iterable(map(self._catalogue.find_all, documents))
        where = Filter(frozenset(chosen), metadata or {})
        return self.search_embedded(self.retriever.embed(query), k, where, mix)

    def search_embedded(
        self, query: Query, k: int, where: Filter, mix: Mix = DEFAULT_MIX
    ) -> list[Hit]:
        """Return the `k` pages of `where` that answer `query` best, the best first.

        Raises:
            InvalidRequest: no page has such metadata.
        """
        names = Names.read(self._store)
        found = self.retriever.search_embedded(query, k, where, mix)
        if not found and where.metadata:
            self._check_metadata(where.metadata)
        pages = {page.key: page for page in self._store.fetch([one.key for one in found])}
        records = {one.key.document: self._store.ledger.record(one.key.document) for one in found}
        return [
            self._make_hit(one, pages[one.key], records[one.key.document], names, query)
            for one in found
            if one.key in pages  # another process may have removed it meanwhile
        ]

    def _make_hit(
        self,
        scored: ScoredPage,
        page: Page,
        record: DocumentRecord | None,
        names: Names,
        query: Query,
    ) -> Hit:
        name, file = page.key.document, names.path(page.key.document)
        error, content_hash = (record.error, record.content_hash) if record else (None, None)
        found = _StoredPage(page, query, file, content_hash, self._drawer)
        return Hit(
            name,
            page.key.number,
            scored.score,
            scored.relevance,
            scored.found_by,
            scored.found_words,
            file or Path(name),
            error,
            page.metadata,
            found,
        )

    def _check_metadata(self, wanted: Mapping[str, Any]) -> None:
        known = self._store.metadata_names()
        if unknown := sorted(set(wanted) - known):
            raise InvalidRequest(
                f"no page has metadata named {', '.join(map(repr, unknown))} "
                f"(there are: {', '.join(sorted(known)) or 'none'})"
            )

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had."""
        return self._catalogue.remove(document)

    def prune(self, paths: Paths) -> Removal:
        """Remove the documents whose files are gone, as `Index.prune` says."""
        return self._catalogue.prune(as_places(paths))

    def documents(self) -> list[StoredDocument]:
        """Return all documents in the store, by name."""
        return self._catalogue.list()

    def close(self) -> None:
        """Close the store, unless it was handed over open."""
        self._drawer.close()
        if self._owns_store:
            self._store.close()


@dataclass(frozen=True, eq=False)
class _StoredPage:
    """The page of a hit as it was fetched, and where its document's file is, if it has one."""

    page: Page
    query: Query
    file: Path | None
    content_hash: str | None
    drawer: PageDrawer

    @property
    def text(self) -> str | None:
        return self.page.text

    @property
    def thumbnail(self) -> bytes | None:
        return self.page.thumbnail

    def maps(self) -> PageMaps:
        return map_similarities(self.query, self.page)

    def image_file(self) -> bytes | None:
        return self._draw_again() or self.thumbnail

    def jpeg(self, width: int) -> Picture | None:
        if self.thumbnail is None:
            return None
        return self.drawer.draw(self.page.key.document, self.page.key.number, width)

    def _draw_again(self) -> bytes | None:
        """Return an image file of the page as it is now; None if its file has changed."""
        if self.file is None:
            return None
        try:
            if hash_file(self.file) != self.content_hash:
                return None
            with open_document(self.file) as pages:
                content = pages.make(self.page.key.number).content
        except (PagevecError, OSError):
            return None
        return content if isinstance(content, bytes) else None
