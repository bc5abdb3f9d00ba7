"""The SQLite file of the embedded store: its tables, its connections, its transactions."""

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pagevec.errors import StoreError

SCHEMA_VERSION = 2
_WAIT_SECONDS = 60.0
_MAPPED_BYTES = 1 << 40

# Numbers of pages are never used again (AUTOINCREMENT), so a deletion stays true for ever.
# What is scanned (keys, metadata, bits) stands apart from what is long.
_SCHEMA = """
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
_SINCE_VERSION_2 = "CREATE TABLE probe (dim INTEGER NOT NULL, vectors BLOB NOT NULL)"


class Database:
    """A file in WAL mode with synchronous FULL. May be used from several threads and processes.

    Each transaction has a connection for itself; idle ones are used again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._idle: deque[sqlite3.Connection] = deque()

    def create(self, form: str) -> None:
        """Make the tables that are missing, for vectors in the format `form`.

        Raises:
            StoreError: the file is no store, or of a version that this one cannot read.
        """
        # An open store takes no lock: it opens while another process writes.
        with self.reading() as connection:
            version = _version(connection)
        if version < SCHEMA_VERSION:
            with self.writing() as connection:
                _make_tables(connection, form)
        elif version > SCHEMA_VERSION:
            raise StoreError(f"the store {self.file} is of version {version}: update pagevec")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction that sees one state of the store."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction that is durable at its end, or undone."""
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
            connection = self._taken()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.file} cannot be used: {error}") from error

    def _taken(self) -> sqlite3.Connection:
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


def _make_tables(connection: sqlite3.Connection, form: str) -> None:
    version = _version(connection)
    if version == SCHEMA_VERSION:
        return  # another process came first
    if version == 0:
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO store VALUES (?, NULL, 0)", [form])
    connection.execute(_SINCE_VERSION_2)
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
