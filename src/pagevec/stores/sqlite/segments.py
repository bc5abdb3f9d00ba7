"""Segments of inverted lists: how pages come into the lists of a store's SQLite file.

Pages come into the lists some hundred at a time, as a segment; four segments of a size become one.
Segments do not change otherwise.
"""

import heapq
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagevec.stores import hamming
from pagevec.stores.base import DamagedPages
from pagevec.stores.centroids import Centroids, Positions
from pagevec.stores.codec import VectorFormat, unpack_unit
from pagevec.types import PageKey
from pagevec.wire.quantize import sign_bytes

SEGMENT = 512
"""New pages that make a segment."""

_MERGED = 4
"""Segments of a size that become one."""
_SEGMENTS = 1 << 16  # each has as many ids for its lists
_SAMPLED, _SAMPLED_COMPONENTS = 600, 50_000_000
"""Pages whose vectors train the centroids, and how many numbers they are at most: 200 MB."""
_AT_ONCE = 32
"""Pages whose vectors are in memory at a time, to be assigned to centroids."""

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
_LISTS = """
SELECT lists.id % 65536, pages FROM segments CROSS JOIN json_each(?) AS wanted
CROSS JOIN lists ON lists.id = segment * 65536 + wanted.value"""
_OF_SEGMENT = "id BETWEEN ?1 * 65536 AND ?1 * 65536 + 65535"

Ids = NDArray[np.uint32]
"""Ids of pages."""


def read_lists(
    connection: sqlite3.Connection, wanted: Positions, last: int
) -> dict[int, list[Ids]]:
    """Return the lists of some centroids: the pages of each segment.

    Args:
        connection: a connection in a transaction.
        wanted: positions of the centroids.
        last: the highest id of a page.

    Raises:
        ValueError: one has pages that cannot be.
    """
    lists = defaultdict[int, list[Ids]](list)
    for centroid, packed in connection.execute(_LISTS, [json.dumps(wanted.tolist())]):
        lists[centroid].append(unpack_list(packed, last + 1))
    return lists


def read_waiting(connection: sqlite3.Connection, revision: int) -> Ids:
    """Return the pages of later revisions, which are in no list if `revision` is the lists'."""
    return _ids(connection.execute(_WAITING, [revision]))


def has_pages(connection: sqlite3.Connection, count: int) -> bool:
    """Whether a store has so many pages, at least one; the others are not counted."""
    found = connection.execute("SELECT 1 FROM pages LIMIT 1 OFFSET ?", [max(1, count) - 1])
    return found.fetchone() is not None


def is_worth_it(connection: sqlite3.Connection, revision: int) -> bool:
    """Whether there are so many pages that lists pay, and a segment of them waits."""
    [(waiting,)] = connection.execute(_HOW_MANY_WAIT, (revision, SEGMENT))
    return bool(waiting >= SEGMENT) and has_pages(connection, hamming.SCAN_FROM)


def drop_lists(connection: sqlite3.Connection) -> None:
    """Delete the lists and their centroids."""
    for table in ("lists", "segments", "centroids"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608


def save_centroids(connection: sqlite3.Connection, centroids: Centroids) -> None:
    """Write centroids whose lists are empty."""
    connection.execute(
        "INSERT INTO centroids (dim, cells, packed, revision) VALUES (?, ?, ?, 0)",
        (centroids.dim, len(centroids.middles), centroids.to_bytes()),
    )


class NewPages:
    """The pages that are put into lists, as a store keeps them.

    Args:
        form: how the store keeps vectors.
        damaged: takes the pages whose vectors cannot be read; they come into no list.
    """

    def __init__(self, form: VectorFormat, damaged: DamagedPages) -> None:
        self._form = form
        self._damaged = damaged

    def train_centroids(self, connection: sqlite3.Connection) -> Centroids:
        """Return centroids of the vectors of some pages, spread evenly over all."""
        ids = _ids(connection.execute("SELECT id FROM pages ORDER BY id"))
        chosen = ids[np.linspace(0, len(ids) - 1, min(_SAMPLED, len(ids))).astype(int)]
        rows = connection.execute(_SAMPLE, [json.dumps(chosen.tolist())])
        [(dim,)] = connection.execute("SELECT dim FROM store")
        chance = np.random.default_rng(0)
        sampled = []
        for _, vectors in self._vectors(rows, dim):
            most = max(1, _SAMPLED_COMPONENTS // len(chosen) // vectors.shape[1])
            sampled.append(vectors[np.sort(chance.permutation(len(vectors))[:most])])
        return Centroids.train(np.concatenate(sampled))

    def assign(
        self, connection: sqlite3.Connection, centroids: Centroids, revision: int
    ) -> tuple[Ids, Positions, int]:
        """Return pages of the next revisions with their centroids, a pair each, and the last one.

        A page is there as often as it has vectors of different centroids.
        """
        rows = connection.execute(_NEXT, (revision, SEGMENT)).fetchall()
        pages, assigned = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
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


def write_segment(connection: sqlite3.Connection, pages: Ids, assigned: Positions) -> None:
    """Write the smallest segment, of pages with their centroids as `NewPages.assign` pairs them."""
    _write(connection, 0, _by_centroid(pages, assigned))


def merge_segments(connection: sqlite3.Connection, gone: NDArray[np.bool_]) -> None:
    """Make one segment of many of the same size, and again where that makes many.

    Args:
        connection: a connection in a transaction that may write.
        gone: whether the page of each id was deleted.
    """
    many = "SELECT level FROM segments GROUP BY level HAVING count(*) >= ?"
    while levels := connection.execute(many, [_MERGED]).fetchall():
        [level] = levels[0]
        select = "SELECT segment FROM segments WHERE level = ?"
        merged = [segment for (segment,) in connection.execute(select, [level])]
        _write(connection, level + 1, _read_merged(connection, merged, gone))
        for segment in merged:
            connection.execute(f"DELETE FROM lists WHERE {_OF_SEGMENT}", [segment])  # noqa: S608
            connection.execute("DELETE FROM segments WHERE segment = ?", [segment])


def _write(connection: sqlite3.Connection, level: int, lists: Iterable[tuple[int, Ids]]) -> None:
    [(segment,)] = connection.execute(
        "INSERT INTO segments (level) VALUES (?) RETURNING segment", [level]
    ).fetchall()
    connection.executemany(
        "INSERT INTO lists VALUES (?, ?)",
        ((segment * _SEGMENTS + centroid, pack_list(pages)) for centroid, pages in lists),
    )


def _by_centroid(pages: Ids, assigned: Positions) -> Iterator[tuple[int, Ids]]:
    """Yield each centroid that pages fall to, with those pages, in ascending order."""
    pairs = np.unique(assigned << 32 | pages)
    found, starts = np.unique(pairs >> 32, return_index=True)
    lists = np.split(pairs.astype(np.uint32), starts[1:])
    yield from zip(found.tolist(), lists, strict=True)


def _read_merged(
    connection: sqlite3.Connection, segments: Sequence[int], gone: NDArray[np.bool_]
) -> Iterator[tuple[int, Ids]]:
    """Yield each centroid of some segments with its pages, without those that are gone."""
    rows = f"SELECT id % 65536, pages FROM lists WHERE {_OF_SEGMENT}"  # noqa: S608
    by_centroid = heapq.merge(
        *(connection.execute(rows, [segment]) for segment in segments), key=itemgetter(0)
    )
    for centroid, group in groupby(by_centroid, key=itemgetter(0)):
        pages = np.unique(np.concatenate([unpack_list(packed, len(gone)) for _, packed in group]))
        yield centroid, pages[~gone[pages]]


def _ids(rows: Iterable[tuple[int]]) -> Ids:
    return np.fromiter((page for (page,) in rows), np.uint32)


def pack_list(pages: Ids) -> bytes:
    """Return pages, in ascending order, in little more than a byte each.

    They are the first page divided by 256, how many follow of each 256 pages from there on, and
    the remainders. Most lists of large stores have several of each 256 pages.
    """
    if not len(pages):
        return b""
    high = pages >> 8
    counts = np.bincount(high - high[0]).astype(np.uint16)
    head = np.array([high[0], len(counts)], np.uint32)
    return head.tobytes() + counts.tobytes() + pages.astype(np.uint8).tobytes()


def unpack_list(packed: bytes, size: int) -> Ids:
    """Return the pages of a list as it is stored, in ascending order.

    Args:
        packed: the list.
        size: ids of pages are below it.

    Raises:
        ValueError: it is damaged.
    """
    if not packed:
        return np.empty(0, np.uint32)
    first, blocks = np.frombuffer(packed, np.uint32, 2).tolist()
    counts = np.frombuffer(packed, np.uint16, blocks, 8)
    low = np.frombuffer(packed, np.uint8, offset=8 + 2 * blocks)
    if first + blocks > (size >> 8) + 1 or counts.sum() != len(low):
        raise ValueError("a list is cut off, or none")
    high = np.arange(first, first + blocks, dtype=np.uint32) << np.uint32(8)
    pages: Ids = np.bitwise_or(np.repeat(high, counts), low, dtype=np.uint32)
    if pages.max(initial=0) >= size:
        raise ValueError("a list has pages that the store does not have")
    return pages
