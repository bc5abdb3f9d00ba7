"""Stores of pages and their multi-vectors, in SQLite or PostgreSQL. No torch here."""

from pathlib import Path
from typing import TYPE_CHECKING

from pagevec.errors import NoStore, StoreError
from pagevec.extras import how_to_install

if TYPE_CHECKING:
    from pagevec.stores.base import Store

DEFAULT_STORE = "./pagevec-store"


def open_store(name: str = DEFAULT_STORE, *, create: bool = True) -> "Store":
    """Open a store.

    Args:
        name: `postgresql://...`, or the path of a folder for a store in SQLite.
        create: whether a store is made if there is none.

    Raises:
        NoStore: it is not there and shall not be made.
        StoreError: it cannot be opened.
    """
    if not name.startswith(("postgresql://", "postgres://")):
        from pagevec.stores.base import NO_STORE
        from pagevec.stores.sqlite.store import FILE, SqliteStore

        if not create and not _is_there(Path(name) / FILE):
            raise NoStore(f"there is no store at {name}: {NO_STORE}")
        return SqliteStore(name)
    try:
        from pagevec.stores.postgres.store import PostgresStore
    except ImportError:
        raise StoreError(
            f"a store in PostgreSQL needs psycopg: {how_to_install('postgres')}"
        ) from None
    return PostgresStore(name, create=create)


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as error:  # of a folder that this user may not enter
        raise StoreError(f"cannot use the store {file}: {error.strerror}") from error
