"""Stores of pages and their multi-vectors, in SQLite or PostgreSQL. No torch here."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pagevec.errors import InvalidRequest, NoStore, StoreError
from pagevec.extras import how_to_install

if TYPE_CHECKING:
    from pagevec.stores.base import Store
    from pagevec.stores.sqlite.backup import Backup
    from pagevec.types import Progress

DEFAULT_STORE = "./pagevec-store"
_POSTGRES = ("postgresql://", "postgres://")
_SERVICE = ("http://", "https://")


def is_service(name: str) -> bool:
    """Whether a store's name is the address of a service that has the store."""
    return name.lower().startswith(_SERVICE)


def open_store(name: str = DEFAULT_STORE, *, create: bool = True) -> "Store":
    """Open a store.

    Args:
        name: `postgresql://...`, or the path of a folder for a store in SQLite.
        create: whether a store is made if there is none.

    Raises:
        NoStore: it is not there and shall not be made.
        StoreError: it cannot be opened.
        InvalidRequest: it is the address of a service.
    """
    _refuse_service(name)
    if not name.startswith(_POSTGRES):
        from pagevec.stores.sqlite.store import SqliteStore

        if not create:
            require_store(name)
        return SqliteStore(name)
    try:
        from pagevec.stores.postgres.store import PostgresStore
    except ImportError:
        raise StoreError(
            f"a store in PostgreSQL needs psycopg: {how_to_install('postgres')}"
        ) from None
    return PostgresStore(name, create=create)


def back_up_store(
    name: str, to: Path, on_progress: "Progress" = lambda done, total: None
) -> "Backup":
    """Copy a store in SQLite to another folder, while others may write to it.

    Args:
        name: path of the store's folder.
        to: folder of the copy, which is empty or does not exist yet.
        on_progress: called with the bytes that are copied, and those of the whole store.

    Returns:
        The copy, complete and checked.

    Raises:
        NoStore: there is no store.
        StoreError: it cannot be read or is damaged, or the copy cannot be written.
        InvalidRequest: `to` is no folder that can be made or is empty, or the store is in
            PostgreSQL or behind a service.
    """
    _refuse_service(name)
    if name.startswith(_POSTGRES):
        raise InvalidRequest(
            "a store in PostgreSQL is backed up with PostgreSQL's own program: "
            f"pg_dump --format=custom --file={quote(str(to))} {quote(name)}"
        )
    from pagevec.stores.sqlite.backup import back_up

    require_store(name)
    return back_up(Path(name), to, on_progress)


def _refuse_service(name: str) -> None:
    if is_service(name):
        raise InvalidRequest(
            f"{name} is a service: its store is opened where the service runs. Here a folder or "
            "postgresql://... is expected"
        )


def require_store(name: str) -> None:
    """Make sure that a store in a folder is still there; one in PostgreSQL says so when it is used.

    Args:
        name: of the store.

    Raises:
        NoStore: there is none.
        StoreError: this user may not look.
    """
    if name.startswith(_POSTGRES):
        return
    from pagevec.stores.base import NO_STORE
    from pagevec.stores.sqlite.store import FILE

    file = Path(name) / FILE
    try:
        is_there = file.is_file()
    except OSError as error:  # of a folder that this user may not enter
        raise StoreError(f"cannot use the store {file}: {error.strerror}") from error
    if not is_there:
        raise NoStore(f"there is no store at {name}: {NO_STORE}")
