"""Stores of pages and their multi-vectors, in SQLite or PostgreSQL. No torch here."""

from pagevec.errors import StoreError
from pagevec.stores.base import Store

DEFAULT_STORE = "./pagevec-store"


def open_store(name: str = DEFAULT_STORE) -> Store:
    """Open a store, creating it if it does not exist.

    Args:
        name: `postgresql://...`, or the path of a folder for a store in SQLite.

    Raises:
        StoreError: it cannot be opened.
    """
    if not name.startswith(("postgresql://", "postgres://")):
        from pagevec.stores.sqlite.store import SqliteStore

        return SqliteStore(name)
    try:
        from pagevec.stores.postgres.store import PostgresStore
    except ImportError:
        raise StoreError(
            "a store in PostgreSQL needs psycopg: pip install 'pagevec[postgres]'"
        ) from None
    return PostgresStore(name)
