"""The sign bits of all rows in this process, brought up to date with the table at each search."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from threading import Lock

from pagevec.stores import hamming
from pagevec.stores.base import EVERYTHING, DamagedPages, Filter
from pagevec.stores.hamming import BitIndex
from pagevec.stores.postgres.connections import Connection, Connections
from pagevec.stores.postgres.rows import PageTables, Row, read_rows
from pagevec.types import MultiVector, PageKey

# Any row that is added, deleted or changed (which changes its version) changes the hash. Sums of
# ids and of versions could stay equal, and a trigger would be a change to morphik-core's table.
_STAMP = """
SELECT count(*), bit_xor(hashint8extended(id, version)),
    coalesce(sum(pg_column_size(bits)), 0)::bigint
FROM {source}"""

_VERSIONS = "SELECT id, version FROM {source}"

_ROWS_AT_ONCE = 1000


class BitCache:
    """Sign bits, keys and metadata of all rows.

    Args:
        connections: connections to the database.
        damaged: takes the rows whose bits cannot be read; they are never found.
        max_bytes: size of the bits in the table above which nothing is cached.
    """

    def __init__(self, connections: Connections, damaged: DamagedPages, max_bytes: int) -> None:
        self._connections = connections
        self._damaged = damaged
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._stamp: tuple[int, ...] | None = None
        self._clear(dim=0)

    def candidates(
        self,
        choose: Callable[[Connection], PageTables],
        query: MultiVector,
        limit: int,
        where: Filter,
    ) -> list[PageKey] | None:
        """Return the pages that are worth scoring exactly, as `Store.candidates` does.

        Args:
            choose: returns the tables to search.
            query: float32 (vectors, dim), of the tables' dimension.
            limit: how many pages to return at most, where sign bits narrow the search.
            where: which pages to consider.

        Returns:
            Keys of pages, the most promising first; None if the bits are over `max_bytes`.
        """
        with self._lock, self._connections.snapshot() as connection:
            if not self._refresh(connection, choose(connection)):
                return None
            if where != EVERYTHING or len(self._rows) < hamming.SCAN_FROM:
                return _matching(self._rows.values(), where)
            index, rows = self._index, self._rows
        # All of them, because a page may have two rows that are both near.
        nearest = (rows.get(row) for row in index.best(query, len(index)))
        return _distinct((row for row in nearest if row is not None), limit)

    def _refresh(self, connection: Connection, tables: PageTables) -> bool:
        if tables.dim != self._dim:
            self._clear(tables.dim)
        stamp = connection.execute(_STAMP.format(source=tables.source)).fetchone()
        if stamp == self._stamp:
            return True
        if stamp is None or stamp[-1] > self._max_bytes:
            self._clear(tables.dim)
            return False
        self._load(connection, tables)
        self._stamp = stamp
        return True

    def _load(self, connection: Connection, tables: PageTables) -> None:
        """Remove the rows that are gone, then read those that are new or changed.

        A changed row keeps its place until it is read: a search in another thread always finds it.
        """
        statement = _VERSIONS.format(source=tables.source)
        versions: dict[int, int] = dict(connection.execute(statement, binary=True).fetchall())
        gone = self._rows.keys() - versions.keys()
        self._index.remove(list(gone))
        for id in gone:
            del self._rows[id]
        changed = [
            id
            for id, version in versions.items()
            if id not in self._rows or self._rows[id].version != version
        ]
        if changed:
            read = read_rows(connection, tables, ids=changed)
            for rows in _batches(read, _ROWS_AT_ONCE):
                _note_faults(rows, self._damaged)
                self._index.put([row.id for row in rows], [row.signs for row in rows])
                self._rows.update((row.id, row.without_signs()) for row in rows)

    def _clear(self, dim: int) -> None:
        self._dim = dim
        self._stamp = None
        self._index = BitIndex(dim)
        self._rows: dict[int, Row] = {}


def stream_candidates(
    connection: Connection,
    tables: PageTables,
    damaged: DamagedPages,
    query: MultiVector,
    limit: int,
    where: Filter,
) -> list[PageKey]:
    """Return what `BitCache.candidates` would, reading all bits for this search and keeping none.

    Memory is bounded by two blocks of rows: each block competes with the best rows so far.

    Args:
        connection: a connection in a transaction.
        tables: the tables to search.
        damaged: takes the rows whose bits cannot be read.
        query: float32 (vectors, dim), of the tables' dimension.
        limit: how many pages to return at most, where there is no filter.
        where: which pages to consider.
    """
    if where != EVERYTHING:
        rows = read_rows(connection, tables, documents=sorted(where.documents), bits=False)
        return _matching(rows, where)
    best: list[Row] = []
    for block in _batches(read_rows(connection, tables), max(limit, _ROWS_AT_ONCE)):
        _note_faults(block, damaged)
        index, competing = BitIndex(tables.dim), best + block
        index.put(range(len(competing)), [row.signs for row in competing])
        best = [competing[place] for place in index.best(query, limit)]
    return _distinct(best, limit)


def _note_faults(rows: Iterable[Row], damaged: DamagedPages) -> None:
    for row in rows:
        with damaged.noting(row.key):
            if row.fault is not None:
                raise row.fault


def _matching(rows: Iterable[Row], where: Filter) -> list[PageKey]:
    return sorted({row.key for row in rows if row.passes(where)})


def _distinct(rows: Iterable[Row], limit: int) -> list[PageKey]:
    return list(islice(dict.fromkeys(row.key for row in rows), limit))


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield lists of up to `size` rows."""
    while batch := list(islice(rows, size)):
        yield batch
