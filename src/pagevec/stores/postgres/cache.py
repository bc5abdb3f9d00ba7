"""The bits of all rows in this process, made equal to the table before each search."""

from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Lock

from pagevec.stores.base import EVERYTHING, Filter
from pagevec.stores.hamming import BitIndex, PackedBits
from pagevec.stores.postgres.bits import DIM
from pagevec.stores.postgres.connections import Connection, Connections
from pagevec.stores.postgres.read import Row, read_rows
from pagevec.stores.sqlite.store import SCAN_FROM
from pagevec.types import PageKey

# Every row that comes, goes or changes changes the hash: a change makes another `xmin`. Sums of
# ids and of xmins would do less, and a trigger would be a change to their table.
_STAMP = """
SELECT count(*), bit_xor(hashint8extended(id, xmin::text::bigint)),
    coalesce(sum(pg_column_size(embeddings)), 0)::bigint
FROM multi_vector_embeddings WHERE embeddings IS NOT NULL"""

_VERSIONS = """
SELECT id, xmin::text::bigint FROM multi_vector_embeddings WHERE embeddings IS NOT NULL"""

_ROWS_AT_ONCE = 1000


class BitCache:
    """Bits, keys and metadata of all rows, unless they are over `max_bytes` in the table."""

    def __init__(self, connections: Connections, max_bytes: int) -> None:
        self._connections = connections
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._stamp: tuple[int, ...] | None = None
        self._clear()

    def candidates(self, query: PackedBits, limit: int, where: Filter) -> list[PageKey] | None:
        """Return what `EmbeddedStore.candidates` would; None where the bits do not fit."""
        with self._lock, self._connections.snapshot() as connection:
            if not self._refresh(connection):
                return None
            if where != EVERYTHING or len(self._rows) < SCAN_FROM:
                return _matching(self._rows.values(), where)
        # All, for of a page with two rows both may be near.
        ids = self._index.best(query, len(self._index))
        rows = (self._rows.get(row) for row in ids)
        return _distinct((row for row in rows if row is not None), limit)

    def _refresh(self, connection: Connection) -> bool:
        stamp = connection.execute(_STAMP).fetchone()
        if stamp == self._stamp:
            return True
        if stamp is None or stamp[-1] > self._max_bytes:
            self._clear()
            return False
        self._load(connection)
        self._stamp = stamp
        return True

    def _load(self, connection: Connection) -> None:
        """Read the rows that are new or changed, and forget those that are gone."""
        versions: dict[int, int] = dict(connection.execute(_VERSIONS, binary=True).fetchall())
        gone = [id for id, row in self._rows.items() if versions.get(id) != row.version]
        self._index.remove(gone)
        for id in gone:
            del self._rows[id]
        missing = [id for id in versions if id not in self._rows]
        if missing:
            for rows in _batched(read_rows(connection, ids=missing), _ROWS_AT_ONCE):
                self._put(rows)

    def _put(self, rows: list[Row]) -> None:
        self._index.put([row.id for row in rows], [row.signs for row in rows])
        self._rows.update((row.id, row.without_signs()) for row in rows)

    def _clear(self) -> None:
        self._stamp = None
        self._index = BitIndex(DIM)
        self._rows: dict[int, Row] = {}


def streamed_candidates(
    connection: Connection, query: PackedBits, limit: int, where: Filter
) -> list[PageKey]:
    """Return the same, but all bits are read once more and none are kept.

    Memory is for two blocks: each block competes with the best so far.
    """
    if where != EVERYTHING:
        rows = read_rows(connection, documents=sorted(where.documents), bits=False)
        return _matching(rows, where)
    best: list[Row] = []
    for block in _batched(read_rows(connection), max(limit, _ROWS_AT_ONCE)):
        index, competing = BitIndex(DIM), best + block
        index.put(range(len(competing)), [row.signs for row in competing])
        best = [competing[place] for place in index.best(query, limit)]
    return _distinct(best, limit)


def _matching(rows: Iterable[Row], where: Filter) -> list[PageKey]:
    return sorted({row.key for row in rows if row.passes(where)})


def _distinct(rows: Iterable[Row], limit: int) -> list[PageKey]:
    return list(islice(dict.fromkeys(row.key for row in rows), limit))


def _batched(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield lists of up to `size` rows."""
    while block := list(islice(rows, size)):
        yield block
