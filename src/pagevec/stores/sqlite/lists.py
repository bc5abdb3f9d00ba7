"""Inverted lists in a store's SQLite file: which pages have vectors near a centroid.

A search reads the lists of the few centroids that are near its query, then the sign bits of the
pages that they promise: neither the bits of all pages, nor anything that has to be kept in memory.
It begins with the most promising ones, and goes on until the nearest have long been found.
The lists are in the database, not in a file beside it: they are committed with what they are made
of, backed up with it, and shared by all processes through the system's cache.

Pages come into the lists a segment at a time; until then their bits are compared one by one. A page
that was replaced is in the lists of its former vectors, too, and a deleted one is passed over: the
lists propose pages, and what is proposed is scored exactly.
"""

import json
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import StoreError
from pagevec.machine import thread_pool, usable_cores
from pagevec.stores.base import DamagedPages
from pagevec.stores.centroids import Centroids, Positions
from pagevec.stores.codec import VectorFormat, unpack_signs
from pagevec.stores.hamming import BLOCK, smallest
from pagevec.stores.probe import (
    Distances,
    PackedBits,
    ReadBlock,
    compare_blocks,
    has_machine_code,
    pool_similar,
)
from pagevec.stores.sqlite import segments
from pagevec.stores.sqlite.bits_file import BitsFile
from pagevec.stores.sqlite.database import Database
from pagevec.stores.sqlite.segments import Ids, NewPages
from pagevec.types import MultiVector, PageKey

log = logging.getLogger(__name__)

_PROBED = 16
"""Lists that are read for each pooled vector of a query. Of the ten best of a million pages 16 find
all, and 8 find 0.867 (12 queries)."""
_FIRST, _SHARE = 2000, 64
"""Pages whose bits are compared in any case, and the share of a large store's that are."""
_WATCHED, _COUNTED, _REACH = 50, 0.9, 4
"""Pages that are nearest by their bits, and whose places in the order of the lists are watched; the
share of them that counts, the first in that order; how many times as many pages as the place of the
last one that counts are compared in all."""
_MOST, _MOST_SHARE = 100, 0.4
"""Pages whose bits are compared at most, by the root of the number of pages: 14,000 of 20,000.
Where machine code compares them, two fifths of a large store are: 400,000 of a million. What the
lists say of a page is off by some share of the spread of scores; where many pages are as near, the
best ones may be anywhere."""
_MANY = 4
"""Segments that wait before it is said that a search takes longer."""

_DAMAGE = (ValueError, TypeError)
"""What numpy says of bytes that are not what they should be, and of texts in their place."""

_STATE = """
SELECT version, cells, revision FROM centroids WHERE dim = (SELECT dim FROM store)"""
_BITS = "SELECT page, packed FROM json_each(?) AS wanted JOIN bits ON page = wanted.value"
_KEY = "SELECT document, number FROM pages WHERE id = ?"


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
        self._damaged = damaged
        self._new = NewPages(form, damaged)
        self._bits = BitsFile(database)
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
            limit: how many pages to return at most, as `Store.candidates` says.

        Returns:
            Ids of pages, the nearest first.
        """
        try:
            state = self._state(connection)
            promising = self._promising(connection, state, query)
            waiting = segments.read_waiting(connection, state.revision if state else 0)
        except _DAMAGE as error:
            self._discard(error)
            promising, waiting = np.empty(0, np.uint32), segments.read_waiting(connection, 0)
        self._tell(len(waiting))
        promising = promising[~np.isin(promising, waiting)]
        nearest = self._nearest(connection, promising, waiting, query, limit)
        found: list[int] = nearest.tolist()
        return found

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Read the centroids, what was deleted, and where the bits of pages are."""
        with suppress(*_DAMAGE):  # a search says what is wrong with them
            if self._state(connection):
                self._deleted(connection, _last(connection) + 1)
        self._bits.find(connection, np.empty(0, np.uint32))

    def fold(self) -> int:
        """Put a segment of pages into the lists, if so many wait, and their bits into the file.

        Returns:
            How many pages were put there; 0 if none had to be, or another process did it.
        """
        try:
            return max(self._fold(), self._bits.extend())
        except _DAMAGE as error:
            self._discard(error)
            return 0

    def close(self) -> None:
        """Close the file of bits."""
        self._bits.close()

    def _fold(self) -> int:
        with self._database.reading() as connection:
            state = self._state(connection)
            revision = state.revision if state else 0
            if not segments.is_worth_it(connection, revision):
                return 0
            centroids = state.centroids if state else self._new.train_centroids(connection)
            pages, assigned, until = self._new.assign(connection, centroids, revision)
        with self._database.writing() as connection:
            now = self._state(connection)
            if (now and (now.version, now.revision)) != (state and (state.version, revision)):
                return 0
            if state is None:
                segments.drop_lists(connection)
                segments.save_centroids(connection, centroids)
            segments.write_segment(connection, pages, assigned)
            connection.execute("UPDATE centroids SET revision = ?", [until])
            segments.merge_segments(connection, self._deleted(connection, _last(connection) + 1))
        return len(np.unique(pages))

    def discard(self) -> None:
        """Forget lists and centroids: `fold` makes new ones, of the pages as they are then."""
        with self._database.writing() as connection:
            segments.drop_lists(connection)

    def _state(self, connection: sqlite3.Connection) -> _State | None:
        for version, cells, revision in connection.execute(_STATE):
            with self._lock:
                if self._read is None or self._read[0] != version:
                    [(packed, dim)] = connection.execute("SELECT packed, dim FROM centroids")
                    self._read = version, Centroids.from_bytes(packed, dim, cells)
                return _State(version, revision, self._read[1])
        return None

    def _promising(
        self, connection: sqlite3.Connection, state: _State | None, query: MultiVector
    ) -> Ids:
        """Return the pages that the lists of centroids near the query promise, the best first."""
        if state is None:
            return np.empty(0, np.uint32)
        last = _last(connection)
        similar = state.centroids.similarities(pool_similar(query))
        probed = _highest(similar, 1 + _PROBED)
        lists = segments.read_lists(connection, np.unique(probed[:, 1:]), last)
        scores = _score_pages(similar, probed, lists, last + 1)
        ids = np.arange(1, last + 1)
        ids = ids[~self._deleted(connection, last + 1)[ids]]
        share = _MOST_SHARE if has_machine_code() else 0.0
        most = max(_FIRST, round(_MOST * len(ids) ** 0.5), round(share * len(ids)))
        return ids[smallest(-scores[ids], most)].astype(np.uint32)

    def _deleted(self, connection: sqlite3.Connection, size: int) -> NDArray[np.bool_]:
        """Return whether the page of each id below `size` was deleted."""
        with self._lock:
            if len(self._gone) < size:
                self._gone = np.concatenate([self._gone, np.zeros(size, np.bool_)])
            [(until,)] = connection.execute("SELECT revision FROM store")
            if until > self._gone_until:
                changed = "SELECT page FROM deletions WHERE revision > ?"
                for (page,) in connection.execute(changed, [self._gone_until]):
                    self._gone[page : page + 1] = True
                self._gone_until = until
            return self._gone

    def _nearest(
        self,
        connection: sqlite3.Connection,
        promising: Ids,
        waiting: Ids,
        query: MultiVector,
        limit: int,
    ) -> Ids:
        """Return pages in the order of the distances of their sign bits, the nearest first.

        Those that wait for their place in the lists are compared, and the promising ones until the
        nearest have long been found.
        """
        found, distances = self._compare(connection, waiting, query)
        done, wanted = 0, max(_FIRST, _last(connection) // _SHARE, limit // 3)
        while done < min(wanted, len(promising)):
            pages, theirs = self._compare(connection, promising[done:wanted], query)
            found, distances = np.append(found, pages), np.append(distances, theirs)
            watched = found[smallest(distances, _WATCHED)]
            [places] = np.nonzero(np.isin(promising[:wanted], watched))
            counted = places[: math.ceil(_COUNTED * len(places))]
            done, wanted = wanted, _REACH * int(counted.max(initial=0) + 1)
        return found[smallest(distances, limit)]

    def _compare(
        self, connection: sqlite3.Connection, ids: Ids, query: MultiVector
    ) -> tuple[Ids, Distances]:
        """Return those of the pages that have sign bits, and their distances to the query's."""
        blocks, others = self._bits.find(connection, np.sort(ids))
        distances = compare_blocks(query, len(ids), blocks)
        found = np.concatenate([np.empty(0, np.uint32), *(block.ids for block in blocks)])
        if len(damaged := self._bits.check(blocks)):
            is_whole = ~np.isin(found, damaged)
            found, distances = found[is_whole], distances[is_whole]
        pages, theirs = self._compare_stored(connection, np.append(others, damaged), query)
        return np.append(found, pages), np.append(distances, theirs)

    def _compare_stored(
        self, connection: sqlite3.Connection, ids: Ids, query: MultiVector
    ) -> tuple[Ids, Distances]:
        """Compare pages by their bits in the database."""
        found = list[int]()

        # One thread reads: several would wait for the interpreter's lock at each row.
        def read() -> Iterator[ReadBlock]:
            for first in range(0, len(ids), BLOCK):
                bits = self._read_bits(connection, ids[first : first + BLOCK], query.shape[1])
                found.extend(bits)
                yield ReadBlock(list(bits.values()))

        distances = compare_blocks(query, len(ids), read())
        return np.array(found, np.uint32), distances

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
        if waiting >= _MANY * segments.SEGMENT and not self._has_told:
            self._has_told = True
            log.warning(
                "%s: %d pages are not in the lists that make searches fast: `pagevec store index "
                "%s` puts them there",
                self._database.file,
                waiting,
                self._database.file.parent,
            )


def _last(connection: sqlite3.Connection) -> int:
    """Return the highest id of a page."""
    [(last,)] = connection.execute("SELECT coalesce(max(id), 0) FROM pages")
    return int(last)


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
