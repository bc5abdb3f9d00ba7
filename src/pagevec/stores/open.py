"""A store by its name, as it stands on a command line or in a setting."""

from pagevec.errors import StoreError
from pagevec.stores.base import DocumentStore
from pagevec.stores.sqlite.store import EmbeddedStore

DEFAULT_STORE = "./pagevec-store"


def open_store(name: str = DEFAULT_STORE) -> DocumentStore:
    """Return the store `name`: `postgresql://...`, or the folder of an embedded store.

    Raises:
        StoreError: it cannot be opened.
    """
    if name.startswith(("postgresql://", "postgres://")):
        return _postgres(name)
    return EmbeddedStore(name)


def _postgres(url: str) -> DocumentStore:
    try:
        from pagevec.stores.postgres.store import PostgresStore
    except ImportError:
        raise StoreError("a store in PostgreSQL needs `pip install 'pagevec[postgres]'`") from None
    return PostgresStore(url)
