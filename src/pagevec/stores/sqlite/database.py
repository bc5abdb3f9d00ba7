"""The SQLite file of a store: its tables, connections and transactions."""

import os
import re
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pagevec.errors import StoreError
from pagevec.stores.base import ProcessGuard
from pagevec.stores.sqlite import words

_WAIT_SECONDS = 60.0
_SETTINGS = (
    "PRAGMA page_size = 4096",  # larger ones take 3 % more space and are no faster
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    # Read by system calls: a mapped file that is cut meanwhile kills the process.
    "PRAGMA mmap_size = 0",
)

_CREATE, _USE = "mode=rwc", "mode=rw"
"""How the file is opened first, and later: if it is lost then, no empty store takes its place."""

# What to do about an error, by the beginning of SQLite's name for it.
_ADVICE = {
    "SQLITE_BUSY": "another process keeps it locked; try again when that is done",
    "SQLITE_CANTOPEN": "check that it is there, and that this user may read it",
    "SQLITE_CORRUPT": "it is damaged; restore it from a copy, or ingest into a new store",
    "SQLITE_FULL": "make room on its disk, then try again",
    "SQLITE_IOERR": "check its disk, and that nothing else has cut or replaced it",
    "SQLITE_NOTADB": "give the folder of a store that pagevec made",
    "SQLITE_READONLY": "it can be searched, but this user may not write to its folder",
}

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
# Leases had ends by the wall clock before, in `claims`.
_VERSION_4 = """
CREATE TABLE IF NOT EXISTS leases (
    document TEXT PRIMARY KEY, worker TEXT NOT NULL, renewed REAL NOT NULL, seconds REAL NOT NULL
);
DROP TABLE IF EXISTS claims"""
_VERSION_5 = "ALTER TABLE documents ADD COLUMN version TEXT"
# A list's id is that of its segment times 65,536, plus the number of its centroid: what is written
# together stands together. Version 7 had lists of another form, which are made anew.
_LISTS = """
DROP TABLE IF EXISTS centroids;
DROP TABLE IF EXISTS segments;
DROP TABLE IF EXISTS lists;
CREATE TABLE centroids (
    version INTEGER PRIMARY KEY AUTOINCREMENT, dim INTEGER NOT NULL, cells INTEGER NOT NULL,
    packed BLOB NOT NULL, revision INTEGER NOT NULL
);
CREATE TABLE segments (segment INTEGER PRIMARY KEY AUTOINCREMENT, level INTEGER NOT NULL);
CREATE TABLE lists (id INTEGER PRIMARY KEY, pages BLOB NOT NULL)"""
# Tables and not columns: a store that cannot be written is read as if they were there.
_CONDENSED = """
CREATE TABLE condensing (threshold REAL NOT NULL);
CREATE TABLE token_rows (
    page INTEGER PRIMARY KEY REFERENCES pages ON DELETE CASCADE, packed BLOB NOT NULL
)"""
_BITS_FILE = """
CREATE TABLE bits_file (name TEXT NOT NULL, revision INTEGER NOT NULL);
CREATE TABLE bits_parts (
    part INTEGER PRIMARY KEY AUTOINCREMENT, start INTEGER NOT NULL, size INTEGER NOT NULL,
    places BLOB NOT NULL
)"""
_VERSIONS = (
    _VERSION_1,
    _VERSION_2,
    _VERSION_3,
    _VERSION_4,
    _VERSION_5,
    words.CREATE,
    _LISTS,
    _CONDENSED,
    f"{_LISTS};\n{_BITS_FILE}",
)
SCHEMA_VERSION = len(_VERSIONS)


class _Connection(sqlite3.Connection):
    """A connection; `state` is that of the file, where SQLite's locks do not protect it."""

    state: "_State | None" = None


_State = tuple[tuple[int, int, int], ...]
"""What changes when a store is written."""


class Database:
    """A file in WAL mode with synchronous FULL, used by several threads and processes at once.

    Each transaction has a connection to itself; idle connections are used again. Where SQLite may
    write nothing, it cannot lock the file either: then a transaction fails if the file is another
    one at its end.

    Args:
        file: the file.
        must_exist: whether a missing file is an error; else it is created.
    """

    def __init__(self, file: Path, *, must_exist: bool = False) -> None:
        self.file = file
        self._idle: deque[_Connection] = deque()
        self._missing: list[str] = []
        self._mode = _USE if must_exist else _CREATE
        self._guard = ProcessGuard(f"the store {file}")

    def create(self, form: str) -> None:
        """Create the tables that are missing, in a new file or one of an older version.

        An older store that cannot be written is read as if they were there, and empty.

        Args:
            form: format of the vectors in a new store.

        Raises:
            StoreError: the file is not a store, or of a version that this one cannot read.
        """
        # No lock if the tables are there: a store opens while another process writes.
        with self.reading() as connection:
            version = self.version(connection)
        if 0 < version < SCHEMA_VERSION and not _is_writable(self.file):
            self.close()
            # Some are made anew by a later version.
            missing = dict.fromkeys(_statements(version))
            self._missing = [one for one in missing if one.startswith("CREATE")]
        elif version < SCHEMA_VERSION:
            with self.writing() as connection:
                _upgrade(connection, form)
        self._mode = _USE

    def version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the tables in the file; 0 if it has none.

        Raises:
            StoreError: it is later than the one that this pagevec knows.
        """
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise StoreError(f"the store {self.file} is of version {version}: update pagevec")
        return version

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

    @contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection outside of transactions, which is closed at the end."""
        self._guard.check()
        try:
            with closing(_connect(self.file, self._mode)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(_describe(self.file, error)) from error

    def close(self) -> None:
        """Close the idle connections, if they are of this process."""
        while self._guard.is_at_home() and self._idle:
            self._idle.pop().close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        self._guard.check()
        try:
            connection = self._take()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error:
                connection.close()  # it may remember parts of a file that has changed
                raise
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise StoreError(_describe(self.file, error)) from error

    def _take(self) -> _Connection:
        with suppress(IndexError):
            return self._idle.pop()
        connection = _connect(self.file, self._mode)
        for statement in self._missing:
            connection.execute(_as_temporary(statement))
        if self._missing:  # what is written into these tables would be lost
            connection.execute("PRAGMA query_only = ON")
        return connection

    def _give_back(self, connection: _Connection) -> None:
        with suppress(sqlite3.ProgrammingError):  # it is closed
            if connection.in_transaction:
                connection.rollback()
            if connection.state is None:
                self._idle.append(connection)
            else:
                connection.close()
        if connection.state not in (None, _state(self.file, _log(self.file))):
            raise StoreError(f"the store {self.file} was changed while it was read: try again")


def _version(connection: sqlite3.Connection) -> int:
    [(version,)] = connection.execute("PRAGMA user_version")
    return int(version)


def _upgrade(connection: sqlite3.Connection, form: str) -> None:
    version = _version(connection)  # another process may have been faster
    for statement in _statements(version):
        connection.execute(statement)
    if version == 0:
        connection.execute("INSERT INTO store VALUES (?, NULL, 0)", [form])
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(version: int) -> list[str]:
    """Return what makes a store of `version` one of this version."""
    return [one.strip() for later in _VERSIONS[version:] for one in later.split(";\n")]


def _as_temporary(statement: str) -> str:
    """Return what creates a table as what creates it for one connection alone."""
    return re.sub(r"(CREATE (?:VIRTUAL )?TABLE (?:IF NOT EXISTS )?)", r"\1temp.", statement)


def _connect(file: Path, mode: str) -> _Connection:
    """Return a connection; one without locks where SQLite may not make the file for them."""
    try:
        return _open(file, mode)
    except sqlite3.OperationalError as error:
        is_refused = error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
        if not is_refused or not file.is_file():
            raise
    state = _state(file, _log(file))
    # What was not moved yet from the log into the file counts, too; an immutable file has no log.
    has_log = any(size for _, size, _ in _state(_log(file)))
    connection = _open(file, "mode=ro&vfs=unix-none" if has_log else "immutable=1")
    connection.state = state
    return connection


def _open(file: Path, how: str) -> _Connection:
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?{how}",
        timeout=_WAIT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
        uri=True,
    )
    words.add_functions(connection)
    try:
        if how not in (_CREATE, _USE):  # without locks, and memory that is shared with others
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        for setting in _SETTINGS:
            connection.execute(setting)
        if how == _CREATE:  # it stays in this mode; asking again would wait for a damaged file
            connection.execute("PRAGMA journal_mode = WAL")
        _version(connection)  # the first look into the file, which may fail
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _log(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _state(*files: Path) -> _State:
    """Return number, size and time of those files that are there."""
    found = []
    for file in files:
        with suppress(FileNotFoundError):
            found.append(file.stat())
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in found)


def _is_writable(file: Path) -> bool:
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def _describe(file: Path, error: sqlite3.Error) -> str:
    """Return a sentence that says what is wrong with a store, and what to do about it."""
    name = getattr(error, "sqlite_errorname", "")  # errors of Python's own module have none
    advice = next((what for begin, what in _ADVICE.items() if name.startswith(begin)), None)
    return f"cannot use the store {file}: {error}" + (f": {advice}" if advice else "")
