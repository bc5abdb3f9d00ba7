"""Stores of pages and their multi-vectors, in SQLite or PostgreSQL. No torch here."""

from pathlib import Path

from pagevec.errors import StoreError
from pagevec.stores.base import NO_STORE, Store

DEFAULT_STORE = "./pagevec-store"


def open_store(name: str = DEFAULT_STORE, *, create: bool = True) -> Store:
    """Open a store.

    Args:
        name: `postgresql://...`, or the path of a folder for a store in SQLite.
        create: whether a store is made if there is none.

    Raises:
        StoreError: it cannot be opened, or is not there and shall not be made.
    """
    if not name.startswith(("postgresql://", "postgres://")):
        from pagevec.stores.sqlite.store import FILE, SqliteStore

        if not create and not _is_there(Path(name) / FILE):
            raise StoreError(f"there is no store at {name}: {NO_STORE}")
        return SqliteStore(name)
    try:
        from pagevec.stores.postgres.store import PostgresStore
    except ImportError:
        raise StoreError(
            "a store in PostgreSQL needs psycopg: pip install 'pagevec[postgres]'"
        ) from None
    return PostgresStore(name, create=create)


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as error:  # of a folder that this user may not enter
        raise StoreError(f"cannot use the store {file}: {error.strerror}") from error
