"""A copy of a store in SQLite, made while others write to it: SQLite's own online backup."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pagevec.errors import InvalidRequest, StoreError
from pagevec.stores.sqlite.database import Database
from pagevec.stores.sqlite.store import FILE
from pagevec.types import Progress

_PART = f"{FILE}.part"
_STEP = 1024
"""Pages of the file, 4 KiB each in a new store, between two calls of `on_progress`."""

_COUNT = "SELECT (SELECT count(*) FROM pages), (SELECT count(DISTINCT document) FROM pages)"


@dataclass(frozen=True)
class Backup:
    """A complete copy of a store, which is a store itself.

    Attributes:
        folder: where it is.
        pages: how many pages it has.
        documents: how many documents these pages are of.
        bytes: size of its file.
    """

    folder: Path
    pages: int
    documents: int
    bytes: int


def back_up(store: Path, to: Path, on_progress: Progress = lambda done, total: None) -> Backup:
    """Copy a store as it is at one moment, whoever writes to it meanwhile.

    The copy gets its name only once it is complete, checked and on disk. The store is not changed;
    one of an older version is copied as it is.

    Args:
        store: folder of the store.
        to: folder of the copy: empty, or missing in a folder that exists.
        on_progress: called with the bytes that are copied, and those of the whole store.

    Raises:
        InvalidRequest: `to` is no folder that can be made or is empty.
        StoreError: the store cannot be read or is damaged, or the copy cannot be written; nothing
            is left of it then.
    """
    with closing(Database(store / FILE, must_exist=True)) as database, _claimed(to, store) as part:
        with database.reading() as connection:
            if not database.version(connection):
                raise StoreError(f"{database.file} is not a store: give the folder of one")
            # The transaction sees one state of the store from here on.
            [(pages, documents)] = connection.execute(_COUNT)
            try:
                _copy(connection, part, on_progress)
            except sqlite3.Error as error:
                raise StoreError(f"cannot back up the store {store} to {to}: {error}") from error
        _verify(part, (pages, documents), store)
        _write_through(part)
        size = part.stat().st_size
        part.rename(to / FILE)
        _write_through(to)
    return Backup(to, pages, documents, size)


@contextmanager
def _claimed(folder: Path, store: Path) -> Iterator[Path]:
    """Yield a new file in `folder`, which nobody else uses; on an error leave nothing behind.

    Folder and file let nobody read who may not read the store.
    """
    part = folder / _PART
    try:
        is_new = not folder.is_dir()
        if is_new:
            folder.mkdir(mode=_mode_of(store) | stat.S_IRWXU)
        elif any(folder.iterdir()):
            raise InvalidRequest(f"{folder} is not empty: back up to one that is empty, or new")
        part.touch(mode=_mode_of(store / FILE) | stat.S_IRUSR | stat.S_IWUSR, exist_ok=False)
    except OSError as error:
        raise InvalidRequest(f"cannot back up to {folder}: {error.strerror}") from error
    try:
        yield part
    except BaseException as error:
        part.unlink(missing_ok=True)
        part.with_name(f"{_PART}-journal").unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise StoreError(f"cannot back up to {folder}: {error.strerror}") from error
        raise


def _mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _copy(connection: sqlite3.Connection, part: Path, on_progress: Progress) -> None:
    [(size,)] = connection.execute("PRAGMA page_size")

    def show(_status: int, remaining: int, total: int) -> None:
        on_progress((total - remaining) * size, total * size)

    with closing(sqlite3.connect(part)) as copy:
        connection.backup(copy, pages=_STEP, progress=show)


def _verify(part: Path, counted: tuple[int, int], store: Path) -> None:
    """Read the whole copy; as an immutable file, beside which SQLite makes no others."""
    try:
        with closing(sqlite3.connect(f"{part.absolute().as_uri()}?immutable=1", uri=True)) as copy:
            [(found,)] = copy.execute("PRAGMA integrity_check(1)")
            is_whole = found == "ok" and copy.execute(_COUNT).fetchone() == counted
    except sqlite3.Error as error:
        is_whole, found = False, error
    if not is_whole:
        raise StoreError(
            f"the copy of the store {store} is damaged, as the store itself may be ({found}): "
            "check its disk; restore it from an earlier backup, or ingest into a new store"
        )


def _write_through(path: Path) -> None:
    """Return once what is written of a file or a folder is on its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
