"""A replica in memory of the sign bits in a store's SQLite file."""

import sqlite3
from threading import Lock

import numpy as np

from pagevec.stores.base import DamagedPages
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
        self._revision = 0
        self._lock = Lock()

    def best(self, connection: sqlite3.Connection, query: PackedBits, limit: int) -> list[int]:
        """Return the pages that are nearest to a query, as of the connection's transaction.

        Args:
            connection: a connection in a transaction.
            query: sign bits of the query, uint8 (vectors, dim / 8).
            limit: how many pages to return at most.

        Returns:
            Ids of pages, the nearest first.
        """
        with self._lock:
            self._refresh(connection)
        return self._index.best(query, limit)

    def _refresh(self, connection: sqlite3.Connection) -> None:
        # One row: as cheap as PRAGMA data_version, and it includes this process's own writes.
        [(revision, dim)] = connection.execute("SELECT revision, dim FROM store")
        if revision <= self._revision:
            return
        if self._revision == 0:
            self._index = BitIndex(dim)
        gone = connection.execute("SELECT page FROM deletions WHERE revision > ?", [self._revision])
        self._index.remove([page for (page,) in gone])
        changed = connection.execute(_CHANGED, [self._revision])
        while rows := changed.fetchmany(_ROWS_AT_A_TIME):
            self._index.put([row[0] for row in rows], [self._bits(dim, *row) for row in rows])
        self._revision = revision

    def _bits(self, dim: int, _: int, document: str, number: int, packed: bytes) -> PackedBits:
        bits = np.empty((0, dim // 8), np.uint8)
        with self._damaged.noting(PageKey(document, number)):
            bits = np.frombuffer(packed, np.uint8).reshape(-1, dim // 8)
        return bits
