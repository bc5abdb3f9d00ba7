"""Free space in a store's SQLite file, given back to the system by writing the file anew."""

import os
import shutil
import sqlite3
from pathlib import Path

from pagevec.stores.sqlite.database import Database

_TEMPORARY = ("SQLITE_TMPDIR", "TMPDIR")
_USUAL = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 - where SQLite looks, in this order
_WORTH_IT = 0.05  # of the file


def give_back_space(database: Database) -> str:
    """Write the file anew, without what is free in it, if there is room for that on the disks.

    Others can read meanwhile. Who writes waits, up to a minute.

    Returns:
        What was done: a clause.
    """
    with database.reading() as connection:
        size, free = _count(connection)
    if free < _WORTH_IT * size:
        return f"{_megabytes(free)} are free in its file, for new pages"
    lacking = _find_lacking(database.file.parent, size - free)
    if lacking is not None:
        folder, needed = lacking
        return (
            f"{_megabytes(free)} are free in its file, for new pages; to give them back takes "
            f"{_megabytes(needed)} of room in {folder} for a while: make it, and start this again"
        )
    with database.alone() as connection:
        # In a file, not in memory as other temporary data.
        connection.execute("PRAGMA temp_store = FILE")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return f"{_megabytes(free)} of its file are given back"


def _count(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the bytes of the file, and how many of them are free."""
    pragmas = ("page_size", "page_count", "freelist_count")
    page, pages, free = (connection.execute(f"PRAGMA {one}").fetchone()[0] for one in pragmas)
    return page * pages, page * free


def _find_lacking(folder: Path, size: int) -> tuple[Path, int] | None:
    """Return the folder that has no room for a file of `size` bytes, and what it needs.

    SQLite writes the new file into its temporary folder first, then into the log beside the store.
    """
    needed = dict.fromkeys((folder, _temporary_folder()), size)
    if len({one.stat().st_dev for one in needed}) < len(needed):
        needed = {folder: 2 * size}
    full = (one for one in needed.items() if shutil.disk_usage(one[0]).free < one[1])
    return next(full, None)


def _temporary_folder() -> Path:
    named = (os.environ.get(one) for one in _TEMPORARY)
    folders = (Path(one) for one in (*named, *_USUAL) if one)
    usable = (one for one in folders if one.is_dir() and os.access(one, os.W_OK | os.X_OK))
    return next(usable, Path())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
