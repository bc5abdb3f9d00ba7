"""Inverted lists in a store's SQLite file: which pages have vectors near a centroid.

A search reads the lists of the few centroids that are near its query, then the sign bits of the
pages that they promise: neither the bits of all pages, nor anything that has to be kept in memory.
The lists are in the database, not in a file beside it: they are committed with what they are made
of, backed up with it, and shared by all processes through the system's cache; no mapped file can be
cut under a process, which would kill it.

Pages come into the lists some hundred at a time, as a segment; four segments of a size become one.
Segments do not change otherwise. Until then the bits of new pages are compared one by one. A page
that was replaced is in the lists of its former vectors, too, and a deleted one is passed over: the
lists propose pages, and what is proposed is scored exactly.
"""

import heapq
import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import StoreError
from pagevec.machine import thread_pool, usable_cores
from pagevec.stores import hamming
from pagevec.stores.base import DamagedPages
from pagevec.stores.centroids import Centroids, Positions
from pagevec.stores.codec import VectorFormat, unpack_signs, unpack_unit
from pagevec.stores.hamming import BLOCK, PackedBits, compare, smallest
from pagevec.stores.sqlite.database import Database
from pagevec.types import MultiVector, PageKey
from pagevec.wire.quantize import sign_bytes

log = logging.getLogger(__name__)

SEGMENT = 512
"""New pages that make a segment."""

_MERGED = 4
"""Segments of a size that become one."""
_SEGMENTS = 1 << 16  # each has as many ids for its lists
_SAMPLED, _SAMPLED_COMPONENTS = 600, 50_000_000
"""Pages whose vectors train the centroids, and how many numbers they are at most: 200 MB."""
_AT_ONCE = 32
"""Pages whose vectors are in memory at a time, to be assigned to centroids."""
_PROBED = 16
"""Lists that are read for each vector of a query."""
_PROMISING = 40
"""Pages whose bits are compared, by the root of the number of pages: 5,700 of 20,000, 40,000 of a
million. What the lists say of a page is off by some share of the spread of scores, and the best of
more pages stand out farther. Measured on 20,000 pages with the spread of real ones: of the ten best
0.92 are among the first 1,000 of the lists, 0.97 among 3,500, 0.99 among 5,000 to 8,000; reading
more lists changes little."""
_MANY = 4
"""Segments that wait before it is said that a search takes longer."""

_DAMAGE = (ValueError, TypeError)
"""What numpy says of bytes that are not what they should be, and of texts in their place."""

_STATE = """
SELECT version, cells, revision FROM centroids WHERE dim = (SELECT dim FROM store)"""
_WAITING = "SELECT id FROM pages WHERE revision > ?"
_HOW_MANY_WAIT = "SELECT count(*) FROM (SELECT 1 FROM pages WHERE revision > ? LIMIT ?)"
# All pages of a revision: those after it wait.
_NEXT = """
SELECT id, document, number, revision, coalesce(vectors, packed), length(packed)
FROM pages JOIN bits ON bits.page = id JOIN contents ON contents.page = id
WHERE revision > ?1 AND revision <= (
    SELECT max(revision) FROM (
        SELECT revision FROM pages WHERE revision > ?1 ORDER BY revision LIMIT ?2
    )
)"""
_SAMPLE = """
SELECT pages.id, document, number, revision, coalesce(vectors, packed), length(packed)
FROM json_each(?) AS wanted JOIN pages ON pages.id = wanted.value
JOIN bits ON bits.page = pages.id JOIN contents ON contents.page = pages.id"""
_BITS = "SELECT page, packed FROM json_each(?) AS wanted JOIN bits ON page = wanted.value"
_KEY = "SELECT document, number FROM pages WHERE id = ?"
_LISTS = """
SELECT lists.id % 65536, pages FROM segments CROSS JOIN json_each(?) AS wanted
CROSS JOIN lists ON lists.id = segment * 65536 + wanted.value"""

Ids = NDArray[np.uint32]
_NONE = np.empty(0, np.uint32)


@dataclass(frozen=True, eq=False)
class _State:
    """The lists as of a transaction.

    Attributes:
        version: of the centroids; other ones have another one.
        revision: pages of later revisions are not in the lists.
        centroids: whose lists they are.
    """

    version: int
    revision: int
    centroids: Centroids


class InvertedLists:
    """The lists of a store. Thread-safe.

    Args:
        database: the store's file.
        form: how the store keeps vectors.
        damaged: takes the pages whose bits or vectors cannot be read; they are never found.
    """

    def __init__(self, database: Database, form: VectorFormat, damaged: DamagedPages) -> None:
        self._database = database
        self._form = form
        self._damaged = damaged
        self._lock = Lock()
        self._read: tuple[int, Centroids] | None = None
        self._gone, self._gone_until = np.zeros(0, np.bool_), 0
        self._has_told = False

    def best(
        self,
        connection: sqlite3.Connection,
        query: MultiVector,
        limit: int,
    ) -> list[int]:
        """Return the pages that are nearest to a query, as of the connection's transaction.

        Args:
            connection: a connection in a transaction.
            query: float32 (vectors, dim), of the dimension of the store's vectors.
            limit: how many pages to return at most.

        Returns:
            Ids of pages, the nearest first.
        """
        try:
            state = self._state(connection)
            promising = self._promising(connection, state, query, limit)
            waiting = _ids(connection, _WAITING, state.revision if state else 0)
        except _DAMAGE as error:
            self._discard(error)
            promising, waiting = _NONE, _ids(connection, _WAITING, 0)
        self._tell(len(waiting))
        return self._nearest(connection, np.union1d(promising, waiting), query, limit)

    def fold(self) -> int:
        """Put a segment of pages into the lists, if so many wait.

        Returns:
            How many pages were put there; 0 if none had to be, or another process did it.
        """
        try:
            return self._fold()
        except _DAMAGE as error:
            self._discard(error)
            return 0

    def _fold(self) -> int:
        with self._database.reading() as connection:
            state = self._state(connection)
            revision = state.revision if state else 0
            if not _is_worth_it(connection, revision):
                return 0
            centroids = state.centroids if state else self._train(connection)
            pages, assigned, until = self._assign(connection, centroids, revision)
        with self._database.writing() as connection:
            now = self._state(connection)
            if (now and (now.version, now.revision)) != (state and (state.version, revision)):
                return 0
            if state is None:
                _drop(connection)
                _save(connection, centroids)
            _write_segment(connection, 0, _by_centroid(pages, assigned))
            connection.execute("UPDATE centroids SET revision = ?", [until])
            self._merge(connection)
        return len(np.unique(pages))

    def discard(self) -> None:
        """Forget lists and centroids: `fold` makes new ones, of the pages as they are then."""
        with self._database.writing() as connection:
            _drop(connection)

    def _state(self, connection: sqlite3.Connection) -> _State | None:
        for version, cells, revision in connection.execute(_STATE):
            with self._lock:
                if self._read is None or self._read[0] != version:
                    [(packed, dim)] = connection.execute("SELECT packed, dim FROM centroids")
                    self._read = version, Centroids.from_bytes(packed, dim, cells)
                return _State(version, revision, self._read[1])
        return None

    def _promising(
        self,
        connection: sqlite3.Connection,
        state: _State | None,
        query: MultiVector,
        limit: int,
    ) -> Ids:
        """Return the pages that are in the lists of centroids near the query."""
        [(last,)] = connection.execute("SELECT coalesce(max(id), 0) FROM pages")
        if state is None:
            return _NONE
        similar = state.centroids.similarities(query)
        probed = _highest(similar, _PROBED + 1)
        lists = _read_lists(connection, np.unique(probed[:, 1:]), last)
        scores = _score_pages(similar, probed, lists, last + 1)
        ids = np.arange(1, last + 1)
        ids = ids[~self._deleted(connection, last + 1)[ids]]
        most = max(2 * limit, round(_PROMISING * len(ids) ** 0.5))
        if most < len(ids):
            ids = ids[np.argpartition(-scores[ids], most)[:most]]
        return ids.astype(np.uint32)

    def _deleted(self, connection: sqlite3.Connection, size: int) -> NDArray[np.bool_]:
        """Return whether the page of each id below `size` was deleted."""
        with self._lock:
            if len(self._gone) < size:
                self._gone = np.concatenate([self._gone, np.zeros(size, np.bool_)])
            [(until,)] = connection.execute("SELECT revision FROM store")
            if until > self._gone_until:
                changed = "SELECT page FROM deletions WHERE revision > ?"
                gone = _ids(connection, changed, self._gone_until)
                self._gone[gone[gone < len(self._gone)]] = True
                self._gone_until = until
            return self._gone

    def _nearest(
        self, connection: sqlite3.Connection, ids: Ids, query: MultiVector, limit: int
    ) -> list[int]:
        """Return those of the pages whose sign bits are nearest to the query's, in order."""
        found = list[int]()

        def read() -> Iterator[list[PackedBits]]:
            for first in range(0, len(ids), BLOCK):
                bits = self._read_bits(connection, ids[first : first + BLOCK], query.shape[1])
                found.extend(bits)
                yield list(bits.values())

        nearest = smallest(compare(query, read()), limit)
        return [found[place] for place in nearest.tolist()]

    def _read_bits(
        self, connection: sqlite3.Connection, ids: Ids, dim: int
    ) -> dict[int, PackedBits]:
        """Return the sign bits of those of the pages that have some."""
        bits = {}
        for page, packed in connection.execute(_BITS, [json.dumps(ids.tolist())]):
            try:
                bits[page] = unpack_signs(packed, dim)
            except _DAMAGE as error:
                [key] = connection.execute(_KEY, [page])
                with self._damaged.noting(PageKey(*key)):
                    raise error
        return {page: rows for page, rows in bits.items() if len(rows)}

    def _train(self, connection: sqlite3.Connection) -> Centroids:
        """Return centroids of the vectors of some pages, spread evenly over all."""
        ids = _ids(connection, "SELECT id FROM pages WHERE revision > ? ORDER BY id", 0)
        chosen = ids[np.linspace(0, len(ids) - 1, min(_SAMPLED, len(ids))).astype(int)]
        rows = connection.execute(_SAMPLE, [json.dumps(chosen.tolist())])
        chance = np.random.default_rng(0)
        sampled = []
        for _, vectors in self._vectors(rows, _dim(connection)):
            most = max(1, _SAMPLED_COMPONENTS // len(chosen) // vectors.shape[1])
            sampled.append(vectors[np.sort(chance.permutation(len(vectors))[:most])])
        return Centroids.train(np.concatenate(sampled))

    def _assign(
        self, connection: sqlite3.Connection, centroids: Centroids, revision: int
    ) -> tuple[Ids, Positions, int]:
        """Return pages of the next revisions with their centroids, a pair each, and the last one.

        A page is there as often as it has vectors of different centroids.
        """
        rows = connection.execute(_NEXT, (revision, SEGMENT)).fetchall()
        pages, assigned = [_NONE], [np.empty(0, np.int64)]
        vectors = self._vectors(rows, centroids.dim)
        while some := list(islice(vectors, _AT_ONCE)):
            of = np.repeat([page for page, _ in some], [len(rows) for _, rows in some])
            pages.append(of.astype(np.uint32))
            assigned.append(centroids.assign(np.concatenate([rows for _, rows in some])))
        return np.concatenate(pages), np.concatenate(assigned), max(row[3] for row in rows)

    def _vectors(self, rows: Iterable[tuple[Any, ...]], dim: int) -> Iterator[tuple[int, Any]]:
        """Yield the id of each page that is whole, with its vectors float32 (n, dim)."""
        for page, document, number, _, packed, bits in rows:
            with self._damaged.noting(PageKey(document, number)):
                yield page, unpack_unit(packed, dim, self._form, bits // sign_bytes(dim))

    def _merge(self, connection: sqlite3.Connection) -> None:
        """Make one segment of many of the same size, and again where that makes many."""
        many = "SELECT level FROM segments GROUP BY level HAVING count(*) >= ?"
        while levels := connection.execute(many, [_MERGED]).fetchall():
            [level] = levels[0]
            select = "SELECT segment FROM segments WHERE level = ?"
            merged = [segment for (segment,) in connection.execute(select, [level])]
            [(last,)] = connection.execute("SELECT max(id) FROM pages")
            gone = self._deleted(connection, last + 1)
            _write_segment(connection, level + 1, _read_merged(connection, merged, gone))
            for segment in merged:
                connection.execute(
                    "DELETE FROM lists WHERE id BETWEEN ?1 * 65536 AND ?1 * 65536 + 65535",
                    [segment],
                )
                connection.execute("DELETE FROM segments WHERE segment = ?", [segment])

    def _discard(self, error: Exception) -> None:
        log.warning(
            "%s: the lists that make searches fast are damaged (%s): all pages are read until "
            "they are made again, which begins with the next page that is stored",
            self._database.file,
            error,
        )
        self._has_told = True
        with suppress(StoreError):  # it cannot be written
            self.discard()

    def _tell(self, waiting: int) -> None:
        if waiting >= _MANY * SEGMENT and not self._has_told:
            self._has_told = True
            log.warning(
                "%s: %d pages are not in the lists that make searches fast: `pagevec store index "
                "%s` puts them there",
                self._database.file,
                waiting,
                self._database.file.parent,
            )


def _is_worth_it(connection: sqlite3.Connection, revision: int) -> bool:
    """Whether there are so many pages that lists pay, and so many of them wait."""
    limits = ((0, max(1, hamming.SCAN_FROM)), (revision, SEGMENT))
    counts = (connection.execute(_HOW_MANY_WAIT, limit).fetchone()[0] for limit in limits)
    return all(count >= limit for count, (_, limit) in zip(counts, limits, strict=True))


def _ids(connection: sqlite3.Connection, statement: str, revision: int) -> Ids:
    return np.fromiter((page for (page,) in connection.execute(statement, [revision])), np.uint32)


def _dim(connection: sqlite3.Connection) -> int:
    [(dim,)] = connection.execute("SELECT dim FROM store")
    return int(dim)


def _drop(connection: sqlite3.Connection) -> None:
    for table in ("lists", "segments", "centroids"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608


def _save(connection: sqlite3.Connection, centroids: Centroids) -> None:
    connection.execute(
        "INSERT INTO centroids (dim, cells, packed, revision) VALUES (?, ?, ?, 0)",
        (centroids.dim, len(centroids.middles), centroids.to_bytes()),
    )


def _by_centroid(pages: Ids, assigned: Positions) -> Iterator[tuple[int, Ids]]:
    """Yield each centroid that pages fall to, with those pages, in ascending order."""
    pairs = np.unique(assigned << 32 | pages)
    found, starts = np.unique(pairs >> 32, return_index=True)
    lists = np.split(pairs.astype(np.uint32), starts[1:])
    yield from zip(found.tolist(), lists, strict=True)


def _write_segment(
    connection: sqlite3.Connection, level: int, lists: Iterable[tuple[int, Ids]]
) -> None:
    [(segment,)] = connection.execute(
        "INSERT INTO segments (level) VALUES (?) RETURNING segment", [level]
    ).fetchall()
    connection.executemany(
        "INSERT INTO lists VALUES (?, ?)",
        ((segment * _SEGMENTS + centroid, pages.tobytes()) for centroid, pages in lists),
    )


def _read_merged(
    connection: sqlite3.Connection, segments: Sequence[int], gone: NDArray[np.bool_]
) -> Iterator[tuple[int, Ids]]:
    """Yield each centroid of some segments with its pages, without those that are gone."""
    rows = "SELECT id % 65536, pages FROM lists WHERE id BETWEEN ?1 * 65536 AND ?1 * 65536 + 65535"
    by_centroid = heapq.merge(
        *(connection.execute(rows, [segment]) for segment in segments), key=itemgetter(0)
    )
    for centroid, group in groupby(by_centroid, key=itemgetter(0)):
        pages = np.unique(np.concatenate([_unpack(packed, len(gone)) for _, packed in group]))
        yield centroid, pages[~gone[pages]]


def _read_lists(
    connection: sqlite3.Connection, wanted: Positions, last: int
) -> dict[int, list[Ids]]:
    """Return the lists of some centroids: the pages of each segment.

    Raises:
        ValueError: one has pages that cannot be.
    """
    lists = defaultdict[int, list[Ids]](list)
    for centroid, packed in connection.execute(_LISTS, [json.dumps(wanted.tolist())]):
        lists[centroid].append(_unpack(packed, last + 1))
    return lists


def _unpack(packed: bytes, size: int) -> Ids:
    pages = np.frombuffer(packed, np.uint32)
    if len(pages) and pages.max() >= size:
        raise ValueError("a list has pages that the store does not have")
    return pages


def _score_pages(
    similar: NDArray[np.float32], probed: Positions, lists: Mapping[int, Sequence[Ids]], size: int
) -> NDArray[np.float32]:
    """Return what the lists say of the score of each page, float32 (size,).

    A page counts with the nearest centroid to a query's vector that has it in its list; if none of
    those that were read has, with the nearest of the others.

    Args:
        similar: products of the query's vectors with the centroids, (vectors, centroids).
        probed: positions of the centroids nearest to each vector, in ascending order of the
            products; the list of the first was not read.
        lists: pages of each of the others.
        size: ids of pages are below it.
    """

    def add_up(rows: Positions) -> NDArray[np.float32]:
        total, rank = np.zeros(size, np.float32), np.empty(size, np.uint8)
        for row in rows:
            rank.fill(0)
            for place, centroid in enumerate(probed[row, 1:].tolist(), start=1):
                for pages in lists.get(centroid, ()):
                    rank[pages] = place
            total += similar[row, probed[row]][rank]
        return total

    parts = np.array_split(np.arange(len(probed)), usable_cores())
    totals = list(thread_pool("pagevec-lists").map(add_up, parts))
    scores: NDArray[np.float32] = np.sum(totals, axis=0)
    return scores


def _highest(similar: NDArray[np.float32], count: int) -> Positions:
    """Return the positions of the `count` highest values of each row, the highest last."""
    count = min(count, similar.shape[1])
    chosen = np.argpartition(similar, -count, axis=1)[:, -count:]
    order = np.argsort(np.take_along_axis(similar, chosen, 1), axis=1, kind="stable")
    highest: Positions = np.take_along_axis(chosen, order, 1)
    return highest
