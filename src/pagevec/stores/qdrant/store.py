"""Pages in Qdrant, as multi-vectors that the engine itself compares by MaxSim.

Each page is a point: its vectors in float16, beside them their sign bits (binary quantization),
which are scanned, and its text, thumbnail, grid and metadata as payload. A search takes the pages
that are nearest by sign bits and ranks them by their vectors, all in the engine. There is no HNSW
graph (`m` is 0): one over multi-vectors costs a MaxSim for each edge that is tried, and misses
pages; scanning bits misses none, and is spread over the shards of a cluster.
"""

import base64
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from pagevec.errors import NoStore, StoreError
from pagevec.grid import PatchGrid
from pagevec.stores.base import (
    EVERYTHING,
    NO_STORE,
    DamagedPages,
    Filter,
    Store,
    are_unit,
    check_rename,
    check_vectors,
    other_dimension,
)
from pagevec.stores.condense import pack_rows, unpack_rows
from pagevec.stores.qdrant.engine import (
    MOST_COMPONENTS,
    Collection,
    Engine,
    Has,
    Point,
    Schema,
)
from pagevec.stores.qdrant.ledger import LEDGER, QdrantLedger, Result, State
from pagevec.types import MultiVector, Page, PageKey

log = logging.getLogger(__name__)

_KEYWORDS = ("kind", "document", "facts", "names")
_KEY = ("document", "number")
_PAGE, _REST = "page", "rest"
"""Kinds of points: a page, and what does not fit into its point of very many vectors."""
_RENAMING, _BEGINNING = "rename documents", "add the first pages"
_SECONDS = 60.0
"""How long other processes wait for one that was killed at one of these."""
_KEYS = uuid.UUID("5f2b8f57-8f1c-4f57-9d0b-6d3b0f3f7c11")  # any, but always the same
_BATCH = 16


class QdrantStore(Store):
    """A store in Qdrant; its vectors have the dimension of the first page.

    Pages of each dimension are in a collection of their own, because that of a collection is fixed:
    a store that has lost its last page takes vectors of any dimension.

    What Qdrant has no transactions for is made so that it can be repeated. The points of a page
    have ids that follow from its document and number, so that two workers that store the same page
    store it once. A rename writes down what it does (see `ledger.Rename`), so that documents are
    seen under all their old names or all their new ones, and whoever opens the store finishes one
    that was cut off.

    Args:
        engine: where the store is; it is closed with the store.
        create: whether a store is made if there is none.

    Raises:
        StoreError: the store cannot be opened, or there is none, and none shall be made.
    """

    shortlist = 20  # the engine has ranked them by their vectors already

    def __init__(self, engine: Engine, *, create: bool = True) -> None:
        self._engine = engine
        self._damaged = DamagedPages(engine.name)
        self._pages: dict[int, Collection] = {}
        self._complete: set[int] = set()
        try:
            collection = engine.create("ledger", LEDGER) if create else engine.open("ledger")
            if collection is None:
                raise NoStore(f"there is no store at {engine.name}: {NO_STORE}")
            self.ledger = QdrantLedger(engine, collection)
            self._finish_rename()
        except StoreError:
            engine.close()
            raise

    def add(self, pages: Sequence[Page]) -> None:
        latest = {page.key: page for page in pages}
        if not latest:
            return
        dim = check_vectors(pages)
        points = [point for page in latest.values() for point in _points(page)]
        vectors = self.ledger.state().vectors
        if vectors is None or vectors.dim != dim or not vectors.is_filled:
            self._add_first(dim, points)
            return
        self._prepared(dim).put(points)
        if self.ledger.state().vectors != vectors:
            self._check_added(dim, points)

    def has(self, document: str) -> frozenset[int]:
        of_it = (_kind(_PAGE), Has("document", (document,)))

        def look(pages: Collection, state: State) -> frozenset[int]:
            if document in state.hidden:
                return frozenset()
            found = pages.select(of_it, ("number",))
            return frozenset(int(point.payload["number"]) for point in found)

        return self._look(look, frozenset())

    def delete(self, document: str) -> int:
        self.ledger.forget(document)
        pages = self._open(self.ledger.state().dim)
        if pages is None:
            return 0
        count = pages.count((_kind(_PAGE), Has("document", (document,))))
        pages.delete((Has("document", (document,)),))
        return count

    def rename(self, names: Mapping[str, str]) -> None:
        with self.ledger.alone(_RENAMING, _SECONDS) as renew:
            self._carry_out(renew)
            taken = {new for new in names.values() if self.has(new)}
            taken |= self.ledger.known(names.values())
            check_rename(names, self.ledger.known(names), taken)
            if names:
                self.ledger.begin_rename(names)
                self._carry_out(renew)

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        conditions = _conditions(where)

        def look(pages: Collection, state: State) -> list[PageKey]:
            if state.dim != query.shape[1]:
                self._refuse_other(pages, state, query.shape[1])
                return []
            found = pages.nearest(query, limit, [*conditions, *_not(state)], _KEY)
            return list(dict.fromkeys(_key(point) for point in found))

        return self._look(look, [])

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        def look(pages: Collection, state: State) -> list[Page]:
            seen = [key for key in keys if key.document not in state.hidden]
            found = self._fetch(pages, seen, state.dim or 0)
            return [found[key] for key in seen if key in found]

        return self._look(look, [])

    def documents(self) -> dict[str, int]:
        return self._values("document")

    def metadata_names(self) -> frozenset[str]:
        return frozenset(self._values("names"))

    def count(self) -> int:
        return self._look(lambda pages, state: pages.count(_seen(state)), 0)

    def fingerprint(self) -> MultiVector | None:
        return self.ledger.fingerprint()

    def save_fingerprint(self, vectors: MultiVector) -> None:
        state, dim = self.ledger.state(), vectors.shape[1]
        pages = self._open(state.dim)
        if pages is not None and state.dim != dim:
            self._refuse_other(pages, state, dim)
        self.ledger.save_fingerprint(vectors, replace=pages is None or _is_empty(pages))

    def condensing(self) -> float | None:
        return self.ledger.condensing()

    def save_condensing(self, threshold: float) -> None:
        self.ledger.save_condensing(threshold)

    def revise(self, keys: Sequence[PageKey], change: Callable[[Page], Page]) -> int:
        known = self.ledger.known({key.document for key in keys})
        changed = [new for page in self.fetch(keys) if (new := change(page)) is not page]
        pages = self._open(self.ledger.state().dim)
        if pages is None or not changed:
            return 0
        pages.put([point for page in changed for point in _points(page)])
        # There are no transactions: a document that was deleted meanwhile must not come back.
        gone = known - self.ledger.known(known)
        if gone:
            pages.delete((Has("document", tuple(gone)),))
        return len([page for page in changed if page.key.document not in gone])

    def give_back_space(self) -> str:
        return "Qdrant gives back by itself what is free"

    def close(self) -> None:
        self._engine.close()

    def _values(self, field: str) -> dict[str, int]:
        def look(pages: Collection, state: State) -> dict[str, int]:
            return pages.values(field, _seen(state))

        return self._look(look, {})

    def _look(self, look: Callable[[Collection, State], Result], nothing: Result) -> Result:
        """Return what `look` finds in the pages; `nothing` before the first one."""

        def look_at(state: State) -> Result:
            pages = self._open(state.dim)
            return nothing if pages is None else look(pages, state)

        return self.ledger.steadily(look_at)

    def _fetch(self, pages: Collection, keys: Sequence[PageKey], dim: int) -> dict[PageKey, Page]:
        fetched: dict[PageKey, Page] = {}
        wanted = iter(dict.fromkeys(keys))
        while batch := list(islice(wanted, _BATCH)):
            first = pages.get([_id(key) for key in batch], vectors=True)
            more = [one for point in first for one in _ids_of_rest(point)]
            rest = {one.id: one for one in pages.get(more, vectors=True)} if more else {}
            for point in first:
                with self._damaged.noting(_key(point)):
                    fetched[_key(point)] = _page(point, rest, dim)
        return fetched

    def _open(self, dim: int | None) -> Collection | None:
        """Return the pages of a dimension, if there are any."""
        if dim is None:
            return None
        if dim not in self._pages:
            pages = self._engine.open(_part(dim))
            if pages is None:
                return None
            self._pages[dim] = pages
        return self._pages[dim]

    def _prepared(self, dim: int) -> Collection:
        """Return the pages of a dimension, ready to be added to."""
        if dim not in self._complete:  # once for each process, in case another was killed at it
            self._pages[dim] = self._engine.create(_part(dim), Schema(_KEYWORDS, dim))
            self._complete.add(dim)
        return self._pages[dim]

    def _add_first(self, dim: int, points: Sequence[Point]) -> None:
        """Add pages to a store that has none, or none of this dimension.

        Raises:
            OtherModel: it has pages of another dimension.
        """
        with self.ledger.alone(_BEGINNING, _SECONDS, wait=_SECONDS):
            state = self.ledger.state()
            before = state.vectors
            pages = self._prepared(dim)
            if before is None or before.dim != dim:
                former = self._open(state.dim)
                if former is not None:
                    self._refuse_other(former, state, dim)
                pages.delete((Has("kind", (_PAGE, _REST)),))  # of one who was killed at this
                self.ledger.set_vectors(dim, is_filled=False)
                if before is not None and former is not None and not _is_empty(former):
                    # Others have added to them since we looked: they were first.
                    self.ledger.set_vectors(before.dim, is_filled=before.is_filled)
                    raise other_dimension(before.dim, dim)
            pages.put(points)
            self.ledger.set_vectors(dim, is_filled=True)

    def _check_added(self, dim: int, points: Sequence[Point]) -> None:
        """Take back pages that were added while others began with another dimension.

        Raises:
            OtherModel: that was so.
        """
        with self.ledger.alone(_BEGINNING, _SECONDS, wait=_SECONDS):
            now = self.ledger.state().dim
            if now is not None and now != dim:
                documents = {point.payload["document"] for point in points}
                self._prepared(dim).delete((Has("document", tuple(documents)),))
                raise other_dimension(now, dim)

    def _refuse_other(self, pages: Collection, state: State, dim: int) -> None:
        """Raise OtherModel if there are pages, whose dimension is not `dim`."""
        if state.dim is not None and not _is_empty(pages):
            raise other_dimension(state.dim, dim)

    def _finish_rename(self) -> None:
        """Finish a rename that was cut off, unless somebody is at it."""
        if self.ledger.state().rename is None:
            return
        try:
            with self.ledger.alone(_RENAMING, _SECONDS) as renew:
                self._carry_out(renew)
        except StoreError as error:  # a search must not fail of it
            log.warning("a rename of documents is not finished: %s", error)

    def _carry_out(self, renew: Callable[[], object]) -> None:
        """Do what is left to do of the rename that has begun, if there is one."""
        state = self.ledger.state()
        rename, pages = state.rename, self._open(state.dim)
        if rename is None:
            return
        if pages is not None and not rename.is_switched:
            for old, new in rename.names.items():
                moved = pages.select((Has("document", (old,)),), vectors=True)
                while batch := [_renamed(point, new) for point in islice(moved, _BATCH)]:
                    renew()
                    pages.put(batch)
        if not rename.is_switched:
            self.ledger.switch_rename(rename.names)
        if pages is not None:
            pages.delete((Has("document", tuple(rename.names)),))
        self.ledger.end_rename(rename.names)


def _part(dim: int) -> str:
    """Return the name of the collection of pages of a dimension."""
    return str(dim)


def _is_empty(pages: Collection) -> bool:
    return not pages.count((_kind(_PAGE),))


def _kind(kind: str) -> Has:
    return Has("kind", (kind,))


def _not(state: State) -> list[Has]:
    return [Has("document", tuple(state.hidden), is_not=True)] if state.hidden else []


def _seen(state: State) -> list[Has]:
    return [_kind(_PAGE), *_not(state)]


def _conditions(where: Filter) -> list[Has]:
    documents = [Has("document", tuple(sorted(where.documents)))] if where.documents else []
    return documents + [Has("facts", (_fact(*item),)) for item in where.metadata.items()]


def _fact(name: str, value: Any) -> str:
    """Return a value of metadata as a keyword: Qdrant takes 1 for 1.0, and a dot for a path."""
    return json.dumps({name: value}, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _id(key: PageKey, part: int = 0) -> str:
    return str(uuid.uuid5(_KEYS, json.dumps([key.document, key.number, part])))


def _key(point: Point) -> PageKey:
    return PageKey(point.payload["document"], int(point.payload["number"]))


def _points(page: Page) -> list[Point]:
    """Return the points of a page, the one that makes it a page of the store last."""
    # As they are stored: fewer digits travel, and it is certain how they are rounded.
    vectors = page.vectors.astype(np.float16).astype(np.float32)
    rows = max(1, MOST_COMPONENTS // vectors.shape[1])
    first, *more = np.split(vectors, range(rows, len(vectors), rows))
    where = {
        "document": page.key.document,
        "number": page.key.number,
        "facts": [_fact(*item) for item in page.metadata.items()],
    }
    rest = [
        Point(_id(page.key, part), {"kind": _REST, "part": part, **where}, vectors)
        for part, vectors in enumerate(more, start=1)
    ]
    payload = {
        "kind": _PAGE,
        "part": 0,
        **where,
        "parts": 1 + len(more),
        "names": list(page.metadata),
        "metadata": json.dumps(dict(page.metadata), allow_nan=False),
        "grid": page.grid and [page.grid.rows, page.grid.columns, page.grid.first],
        "text": page.text,
        "thumbnail": page.thumbnail and base64.b64encode(page.thumbnail).decode(),
    }
    if page.token_rows is not None:
        payload["token_rows"] = base64.b64encode(pack_rows(page.token_rows)).decode()
    return [*rest, Point(_id(page.key), payload, first if len(first) else None)]


def _renamed(point: Point, document: str) -> Point:
    key, part = PageKey(document, _key(point).number), int(point.payload["part"])
    return Point(_id(key, part), {**point.payload, "document": document}, point.vectors)


def _ids_of_rest(point: Point) -> list[str]:
    return [_id(_key(point), part) for part in range(1, int(point.payload["parts"]))]


def _page(point: Point, rest: Mapping[str, Point], dim: int) -> Page:
    """Return the page of a point.

    Raises:
        ValueError: it is not whole.
    """
    payload = point.payload
    parts = [point, *(rest[one] for one in _ids_of_rest(point) if one in rest)]
    if len(parts) != payload["parts"]:
        raise ValueError("a part of its vectors is missing")
    vectors = [one.vectors for one in parts if one.vectors is not None]
    joined = np.concatenate([np.empty((0, dim), np.float32), *vectors])
    if not are_unit(joined):
        raise ValueError("its vectors are not of unit length")
    thumbnail, grid = payload["thumbnail"], payload["grid"]
    packed = payload.get("token_rows")  # older points have none
    return Page(
        _key(point),
        joined,
        json.loads(payload["metadata"]),
        payload["text"],
        None if thumbnail is None else base64.b64decode(thumbnail),
        grid and PatchGrid(*grid),
        packed and unpack_rows(base64.b64decode(packed), len(joined)),
    )
