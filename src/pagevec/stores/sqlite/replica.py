"""A replica in memory of the sign bits in a store's SQLite file."""

import sqlite3
from threading import Lock

from pagevec.stores.base import DamagedPages
from pagevec.stores.codec import unpack_signs
from pagevec.stores.hamming import BitIndex, PackedBits
from pagevec.types import PageKey

_ROWS_AT_A_TIME = 1000
_CHANGED = """
SELECT pages.id, document, number, packed FROM pages JOIN bits ON page = pages.id
WHERE revision > ?"""


class BitReplica:
    """The sign bits of a store's pages by id, following what other processes write.

    A renamed document needs no update: its pages keep their ids, which are all that is kept here.

    Args:
        damaged: takes the pages whose bits cannot be read; they are never found.
    """

    def __init__(self, damaged: DamagedPages) -> None:
        self._damaged = damaged
        self._index = BitIndex(0)
        self._dim = self._revision = 0
        self._lock = Lock()

    def best(self, connection: sqlite3.Connection, query: PackedBits, limit: int) -> list[int]:
        """Return the pages that are nearest to a query, as of the connection's transaction.

        Args:
            connection: a connection in a transaction.
            query: sign bits of the query, of the dimension of the store's vectors.
            limit: how many pages to return at most.

        Returns:
            Ids of pages, the nearest first.
        """
        with self._lock:
            index = self._refresh(connection)
        return index.best(query, limit)

    def _refresh(self, connection: sqlite3.Connection) -> BitIndex:
        # One row: as cheap as PRAGMA data_version, and it includes this process's own writes.
        [(revision, dim)] = connection.execute("SELECT revision, dim FROM store")
        if revision <= self._revision:
            # All pages that this transaction sees may have given way to those of another model.
            return self._index if dim == self._dim else BitIndex(dim)
        if dim != self._dim:
            self._index, self._dim, self._revision = BitIndex(dim), dim, 0
        gone = connection.execute("SELECT page FROM deletions WHERE revision > ?", [self._revision])
        self._index.remove([page for (page,) in gone])
        changed = connection.execute(_CHANGED, [self._revision])
        while rows := changed.fetchmany(_ROWS_AT_A_TIME):
            self._index.put([row[0] for row in rows], [self._bits(dim, *row) for row in rows])
        self._revision = revision
        return self._index

    def _bits(self, dim: int, _: int, document: str, number: int, packed: bytes) -> PackedBits:
        bits = unpack_signs(b"", dim)
        with self._damaged.noting(PageKey(document, number)):
            bits = unpack_signs(packed, dim)
        return bits
