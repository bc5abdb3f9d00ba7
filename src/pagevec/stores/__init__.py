"""Stores of pages and their multi-vectors, in SQLite, PostgreSQL or Qdrant. No torch here.

A store's address begins with a scheme, such as `postgresql:`; one without is a folder.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
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

# A single letter before a colon is a drive of Windows.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_SERVICE = ("http", "https")
# The files that mark the folder of a store, for those who do not import what opens it.
_IN_SQLITE, _IN_QDRANT = "pages.sqlite3", "pages.qdrant"


def is_service(name: str) -> bool:
    """Whether a store's name is the address of a service that has the store."""
    return _scheme(name) in _SERVICE


def open_store(name: str = DEFAULT_STORE, *, create: bool = True) -> "Store":
    """Open a store.

    Args:
        name: its address: a folder for a store in SQLite; `postgresql://...`;
            `qdrant://host:6333/NAME`, or `qdrant+https://...`, for a server;
            `qdrant:FOLDER` for Qdrant's engine in this process.
        create: whether a store is made if there is none.

    Raises:
        NoStore: it is not there and shall not be made.
        StoreError: it cannot be opened.
        InvalidRequest: it is the address of a service, or of no kind that is known.
    """
    return _kind(name).open(name, create)


def require_store(name: str) -> None:
    """Make sure that a store in a folder is still there; others say so when they are used.

    Args:
        name: of the store.

    Raises:
        NoStore: there is none.
        StoreError: this user may not look.
        InvalidRequest: the name is of no kind of store that is known.
    """
    folder, marker = folder_of(name), _kind(name).marker
    if folder is None or marker is None:
        return
    try:
        is_there = (folder / marker).is_file()
    except OSError as error:  # of a folder that this user may not enter
        raise StoreError(f"cannot use the store {folder / marker}: {error.strerror}") from error
    if not is_there:
        from pagevec.stores.base import NO_STORE

        raise NoStore(f"there is no store at {name}: {NO_STORE}")


def check_store_name(name: str) -> None:
    """Raise InvalidRequest if `name` is of no kind of store that is known."""
    _kind(name)


def folder_of(name: str) -> Path | None:
    """Return the folder of this machine that a store is in; None if it is somewhere else."""
    return _kind(name).folder(name)


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
        InvalidRequest: `to` is no folder that can be made or is empty, or the store is not in
            SQLite.
    """
    other = _kind(name).backed_up_by
    if other is not None:
        raise InvalidRequest(other(name, to))
    from pagevec.stores.sqlite.backup import back_up

    require_store(name)
    return back_up(Path(name), to, on_progress)


def _scheme(name: str) -> str | None:
    found = _SCHEME.match(name)
    return None if found is None else found[1].lower()


def _kind(name: str) -> "_Kind":
    scheme = _scheme(name)
    if scheme is None:
        return _FOLDER
    if scheme not in _KINDS:
        raise InvalidRequest(
            f"{name}: there are no stores of the scheme {scheme}: give {_EXPECTED}. "
            f"A folder of this name is ./{name}"
        )
    return _KINDS[scheme]


def _open_sqlite(name: str, create: bool) -> "Store":
    from pagevec.stores.sqlite.store import SqliteStore

    if (Path(name) / _IN_QDRANT).exists():
        raise InvalidRequest(f"{name} is a store in Qdrant's engine: its name is qdrant:{name}")
    if not create:
        require_store(name)
    return SqliteStore(name)


def _open_postgres(name: str, create: bool) -> "Store":
    try:
        from pagevec.stores.postgres.store import PostgresStore
    except ImportError:
        raise StoreError(
            f"a store in PostgreSQL needs psycopg: {how_to_install('postgres')}"
        ) from None
    return PostgresStore(name, create=create)


def _open_qdrant(name: str, create: bool) -> "Store":
    folder = _qdrant_folder(name)
    try:
        from pagevec.stores.qdrant.store import QdrantStore

        if folder is None:
            from pagevec.stores.qdrant.remote import RemoteEngine

            return QdrantStore(RemoteEngine.at(name), create=create)
        from pagevec.stores.qdrant.embedded import EmbeddedEngine

        if (folder / _IN_SQLITE).exists():
            raise InvalidRequest(f"{folder} is a store in SQLite: its name is {folder}")
        return QdrantStore(EmbeddedEngine.share(folder), create=create)
    except ImportError as error:
        package = "qdrant-client" if folder is None else "qdrant-edge-py"
        raise StoreError(
            f"a store in Qdrant needs {package}: {how_to_install('qdrant')}"
        ) from error


def _open_service(name: str, create: bool) -> "Store":
    raise InvalidRequest(_of_a_service(name))


def _qdrant_folder(name: str) -> Path | None:
    """Return the folder of `qdrant:FOLDER`; None for the address of a server."""
    path = name.partition(":")[2]
    if not path:
        raise InvalidRequest(f"{name} names no folder: give {_EXPECTED}")
    return None if path.startswith("//") or _scheme(name) != "qdrant" else Path(path)


def _of_a_service(name: str, to: Path | None = None) -> str:
    return (
        f"{name} is a service: its store is opened where the service runs. Here a folder, "
        "postgresql://... or qdrant:... is expected"
    )


def _of_postgres(name: str, to: Path) -> str:
    return (
        "a store in PostgreSQL is backed up with PostgreSQL's own program: "
        f"pg_dump --format=custom --file={quote(str(to))} {quote(name)}"
    )


def _of_qdrant(name: str, to: Path) -> str:
    return (
        "a store in Qdrant is backed up with Qdrant's own snapshots, or copied into a folder: "
        f"pagevec export {quote(name)} {quote(str(to))}"
    )


@dataclass(frozen=True)
class _Kind:
    """A kind of stores.

    Attributes:
        open: opens the store of an address, and creates it or not.
        folder: returns its folder on this machine, if it is in one.
        marker: the file that this folder has.
        backed_up_by: says what else backs it up; None where `back_up_store` does.
    """

    open: Callable[[str, bool], "Store"]
    folder: Callable[[str], Path | None] = lambda name: None
    marker: str | None = None
    backed_up_by: Callable[[str, Path], str] | None = None


_EXPECTED = (
    "a folder, postgresql://..., qdrant://host:6333/NAME, qdrant+https://..., "
    "qdrant:FOLDER, or http:// of a service that has a store"
)
_FOLDER = _Kind(_open_sqlite, Path, _IN_SQLITE)
_POSTGRES = _Kind(_open_postgres, backed_up_by=_of_postgres)
_QDRANT = _Kind(_open_qdrant, _qdrant_folder, _IN_QDRANT, _of_qdrant)
_A_SERVICE = _Kind(_open_service, backed_up_by=_of_a_service)
_KINDS = {
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "qdrant": _QDRANT,
    "qdrant+https": _QDRANT,
    "http": _A_SERVICE,
    "https": _A_SERVICE,
}
