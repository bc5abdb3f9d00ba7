"""The SQLite file of a store: its tables, connections and transactions."""

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pagevec.errors import StoreError

_WAIT_SECONDS = 60.0
_MAPPED_BYTES = 1 << 40

# Ids of pages are never reused (AUTOINCREMENT), so a row of `deletions` stays true for ever.
# What is scanned (keys, metadata, bits) is apart from what is long.
_VERSION_1 = """
CREATE TABLE store (format TEXT NOT NULL, dim INTEGER, revision INTEGER NOT NULL);
CREATE TABLE pages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document TEXT NOT NULL, number INTEGER NOT NULL,
    revision INTEGER NOT NULL, metadata TEXT NOT NULL, grid TEXT, UNIQUE (document, number)
);
CREATE INDEX pages_by_revision ON pages (revision);
CREATE TABLE bits (
    page INTEGER PRIMARY KEY REFERENCES pages ON DELETE CASCADE, packed BLOB NOT NULL
);
CREATE TABLE contents (
    page INTEGER PRIMARY KEY REFERENCES pages ON DELETE CASCADE,
    vectors BLOB, text TEXT, thumbnail BLOB
);
CREATE TABLE deletions (page INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
CREATE INDEX deletions_by_revision ON deletions (revision);
CREATE TABLE documents (
    name TEXT PRIMARY KEY, content_hash TEXT NOT NULL, pages INTEGER,
    complete INTEGER NOT NULL, error TEXT
);
CREATE TABLE claims (
    document TEXT PRIMARY KEY, worker TEXT NOT NULL, expires REAL NOT NULL
);
"""
_VERSION_2 = "CREATE TABLE probe (dim INTEGER NOT NULL, vectors BLOB NOT NULL)"
_VERSION_3 = "CREATE TABLE labels (label TEXT PRIMARY KEY, folder TEXT NOT NULL)"
_VERSIONS = (_VERSION_1, _VERSION_2, _VERSION_3)
SCHEMA_VERSION = len(_VERSIONS)


class Database:
    """A file in WAL mode with synchronous FULL, used by several threads and processes at once.

    Each transaction has a connection to itself; idle connections are used again.

    Args:
        file: the file, created if it does not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._idle: deque[sqlite3.Connection] = deque()

    def create(self, form: str) -> None:
        """Create the tables that are missing, in a new file or one of an older version.

        Args:
            form: format of the vectors in a new store.

        Raises:
            StoreError: the file is not a store, or of a version that this one cannot read.
        """
        # No lock if the tables are there: a store opens while another process writes.
        with self.reading() as connection:
            version = _version(connection)
        if version < SCHEMA_VERSION:
            with self.writing() as connection:
                _upgrade(connection, form)
        elif version > SCHEMA_VERSION:
            raise StoreError(f"the store {self.file} is of version {version}: update pagevec")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that sees one state of the store."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that is durable at its end, or undone."""
        # IMMEDIATE: writers wait for each other here, so revisions are committed in order.
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._take()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise StoreError(f"cannot use the store {self.file}: {error}") from error

    def _take(self) -> sqlite3.Connection:
        with suppress(IndexError):
            return self._idle.pop()
        return _connect(self.file)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.rollback()
        self._idle.append(connection)


def _version(connection: sqlite3.Connection) -> int:
    [(version,)] = connection.execute("PRAGMA user_version")
    return int(version)


def _upgrade(connection: sqlite3.Connection, form: str) -> None:
    version = _version(connection)  # another process may have been faster
    for statements in _VERSIONS[version:]:
        for statement in statements.split(";\n"):
            connection.execute(statement)
    if version == 0:
        connection.execute("INSERT INTO store VALUES (?, NULL, 0)", [form])
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA page_size = 16384")  # a page's vectors are 100 to 200 kB
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
