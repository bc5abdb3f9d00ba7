"""A copy in memory of the sign bits in a store's file, in step with what other processes do."""

import sqlite3
from threading import Lock

import numpy as np

from pagevec.stores.hamming import BitIndex, PackedBits

_ROWS_AT_A_TIME = 1000
_CHANGED = "SELECT pages.id, packed FROM pages JOIN bits ON page = pages.id WHERE revision > ?"


class BitMirror:
    """The sign bits (vectors, dim / 8) of a store's pages, read from its file as they change."""

    def __init__(self) -> None:
        self._index = BitIndex(0)
        self._revision = 0
        self._lock = Lock()

    def best(self, connection: sqlite3.Connection, query: PackedBits, limit: int) -> list[int]:
        """Return the numbers of up to `limit` pages, the nearest first, as of this transaction."""
        with self._lock:
            self._refresh(connection)
        return self._index.best(query, limit)

    def _refresh(self, connection: sqlite3.Connection) -> None:
        # One row: as cheap as PRAGMA data_version, and it tells of this process's writes too.
        [(revision, dim)] = connection.execute("SELECT revision, dim FROM store")
        if revision <= self._revision:
            return
        if self._revision == 0:
            self._index = BitIndex(dim)
        gone = connection.execute("SELECT page FROM deletions WHERE revision > ?", [self._revision])
        self._index.remove([page for (page,) in gone])
        changed = connection.execute(_CHANGED, [self._revision])
        while rows := changed.fetchmany(_ROWS_AT_A_TIME):
            self._index.put([page for page, _ in rows], [_bits(packed, dim) for _, packed in rows])
        self._revision = revision


def _bits(packed: bytes, dim: int) -> PackedBits:
    return np.frombuffer(packed, np.uint8).reshape(-1, dim // 8)
