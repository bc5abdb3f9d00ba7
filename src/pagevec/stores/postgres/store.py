"""Pages in PostgreSQL; those of 128 dimensions are in morphik-core's own table.

morphik-core's table `multi_vector_embeddings` holds the sign bits, the text and the metadata of
each page: both programs read and write the same rows. `pagevec_pages` holds what it has no column
for: vectors in float16 or int8, thumbnail and patch grid. Pages that morphik-core wrote have sign
bits alone. That table takes vectors of 128 dimensions; pages of another model are in
`pagevec_whole_pages` alone, and then those of morphik-core are no part of the store. pgvector is
not needed: none of its types is used, as this process compares bits faster than anything in SQL.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from pagevec.errors import NoStore
from pagevec.stores.base import (
    EVERYTHING,
    NO_STORE,
    DamagedPages,
    Filter,
    Store,
    TextMatch,
    check_vectors,
    other_dimension,
)
from pagevec.stores.codec import FINGERPRINT_FORMAT, VectorFormat, pack, read_fingerprint
from pagevec.stores.postgres import words
from pagevec.stores.postgres.cache import BitCache, stream_candidates
from pagevec.stores.postgres.connections import Connection, Connections
from pagevec.stores.postgres.ledger import PostgresLedger
from pagevec.stores.postgres.own import OwnTables
from pagevec.stores.postgres.rows import (
    PageTables,
    lock_documents,
    lock_store,
    read_rows,
    rename_documents,
)
from pagevec.stores.postgres.schema import (
    has_pages_table,
    has_shared_pages,
    prepare,
    whole_pages_dimension,
)
from pagevec.stores.postgres.shared import SharedTables
from pagevec.types import MultiVector, Page, PageKey

CACHE_BYTES = 2 << 30
"""Bits that the process may cache, by their size in the table: 120,000 pages of 700 vectors of 128
dimensions, or 6,000 of 4,096."""

_HAS = "SELECT DISTINCT number FROM {source} WHERE document = %s"

# The former statement is for stores of before, which cannot be written.
_FINGERPRINTS = ("SELECT vectors, 128 FROM pagevec_probe", "SELECT vectors, dim FROM pagevec_probe")
_FORGET_FINGERPRINT = "DELETE FROM pagevec_probe WHERE dim IS DISTINCT FROM %s"
_SAVE_FINGERPRINT = """
INSERT INTO pagevec_probe (vectors, dim) VALUES (%s, %s) ON CONFLICT DO NOTHING"""

_CONDENSING = "SELECT threshold FROM pagevec_condensing"
_SAVE_CONDENSING = """
INSERT INTO pagevec_condensing (threshold) VALUES (%s)
ON CONFLICT (single) DO UPDATE SET threshold = excluded.threshold"""

_DOCUMENTS = "SELECT document, count(DISTINCT number) FROM {source} GROUP BY document"

_COUNT = "SELECT count(*) FROM (SELECT DISTINCT document, number FROM {source}) AS distinct_pages"


class PostgresStore(Store):
    """A store in a database of PostgreSQL 14 or newer.

    Args:
        url: of the database, `postgresql://...`; tables that are missing are created.
        vectors: how the vectors of new pages are kept.
        cache_bytes: size of the sign bits in the table above which each search reads them anew.
        create: whether a store is made in a database that has none.

    Raises:
        StoreError: the server cannot be reached, does not let us create the tables, or has no
            store, and none shall be made.
    """

    def __init__(
        self,
        url: str,
        *,
        vectors: VectorFormat = "float16",
        cache_bytes: int = CACHE_BYTES,
        create: bool = True,
    ) -> None:
        self._connections = Connections(url)
        self._format = vectors
        self._damaged = DamagedPages("the store in PostgreSQL")
        self._cache = BitCache(self._connections, self._damaged, cache_bytes)
        self.ledger = PostgresLedger(self._connections)
        with self._connections.opening() as connection:
            if not create and not has_pages_table(connection):
                raise NoStore(f"there is no store in this database: {NO_STORE}")
            self._has = prepare(connection)

    def add(self, pages: Sequence[Page]) -> None:
        latest = list({page.key: page for page in pages}.values())
        if not latest:
            return
        dim = check_vectors(latest)
        with self._connections.transaction() as connection:
            lock_documents(connection, [page.key.document for page in latest])
            known = self._stored_dimension(connection)
            if known is not None:
                self._write(connection, latest, dim, known)
                return
        # The first pages decide which dimension the store has: those of one writer.
        with self._connections.transaction() as connection:
            lock_store(connection)
            self._write(connection, latest, dim, self._stored_dimension(connection))

    def has(self, document: str) -> frozenset[int]:
        with self._reading() as (connection, tables):
            return _numbers(connection, tables, document)

    def delete(self, document: str) -> int:
        with self._connections.transaction() as connection:
            lock_documents(connection, [document])
            tables = self._tables(connection)
            pages = len(_numbers(connection, tables, document))
            for table, column in tables.names.items():
                connection.execute(f"DELETE FROM {table} WHERE {column} = %s", (document,))  # noqa: S608
        return pages

    def rename(self, names: Mapping[str, str]) -> None:
        with self._connections.transaction() as connection:
            lock_store(connection)
            rename_documents(connection, self._tables(connection), names)

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        self._connections.check_process()  # before a lock, which a fork may have left locked
        choose = partial(self._tables_of, query.shape[1])
        nearest = self._cache.candidates(choose, query, limit, where)
        if nearest is not None:
            return nearest
        with self._connections.transaction() as connection:
            tables = choose(connection)
            return stream_candidates(connection, tables, self._damaged, query, limit, where)

    def find_words(
        self, terms: Sequence[str], limit: int, keys: Sequence[PageKey]
    ) -> dict[PageKey, TextMatch]:
        if not self._has.words:  # a store of before, which cannot be written
            return {}
        with self._reading() as (connection, tables):
            return words.find_words(connection, tables, terms, limit, keys)

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        with self._reading() as (connection, tables):
            return tables.read_pages(connection, keys, self._damaged)

    def fetch_vectors(self, keys: Sequence[PageKey]) -> Iterator[Page]:
        with self._reading() as (connection, tables):
            pages = tables.read_pages(connection, keys, self._damaged, whole=False)
        yield from pages

    def documents(self) -> dict[str, int]:
        with self._reading() as (connection, tables):
            return dict(connection.execute(_DOCUMENTS.format(source=tables.source)).fetchall())

    def metadata_names(self) -> frozenset[str]:
        with self._reading() as (connection, tables):
            rows = read_rows(connection, tables, bits=False)
            return frozenset(name for row in rows for name in row.metadata)

    def count(self) -> int:
        with self._reading() as (connection, tables):
            [(count,)] = connection.execute(_COUNT.format(source=tables.source))
        return int(count)

    def fingerprint(self) -> MultiVector | None:
        statement = _FINGERPRINTS[self._has.other_dimensions]
        rows = self._connections.execute(statement, is_optional=True)
        with self._connections.transaction() as connection:
            known = self._found_dimension(connection)
        # One of another dimension is of a model that stored no page in the end.
        saved = (read_fingerprint(packed, dim) for packed, dim in rows if known in (None, dim))
        return next(saved, None)

    def save_fingerprint(self, vectors: MultiVector) -> None:
        dim = vectors.shape[1]
        with self._connections.transaction() as connection:
            _check_dimension(self._stored_dimension(connection), dim)
            connection.execute(_FORGET_FINGERPRINT, (self._found_dimension(connection),))
            connection.execute(_SAVE_FINGERPRINT, (pack(vectors, FINGERPRINT_FORMAT), dim))

    def condensing(self) -> float | None:
        rows = self._connections.execute(_CONDENSING, is_optional=True)
        return next((float(threshold) for (threshold,) in rows), None)

    def save_condensing(self, threshold: float) -> None:
        self._connections.execute(_SAVE_CONDENSING, (threshold,))

    def revise(self, keys: Sequence[PageKey], change: Callable[[Page], Page]) -> int:
        with self._connections.transaction() as connection:
            lock_documents(connection, [key.document for key in keys])
            tables = self._tables(connection)
            return tables.revise_pages(connection, keys, change, self._damaged)

    def give_back_space(self) -> str:
        return "PostgreSQL keeps what is free for new pages (VACUUM FULL gives it back)"

    def close(self) -> None:
        self._connections.close()

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, PageTables]]:
        with self._connections.transaction() as connection:
            yield connection, self._tables(connection)

    def _write(
        self, connection: Connection, pages: Sequence[Page], dim: int, known: int | None
    ) -> None:
        _check_dimension(known, dim)
        tables = self._tables_for(dim)
        tables.write_pages(connection, pages, self._format)
        words.write_words(connection, tables, pages)

    def _tables(self, connection: Connection) -> PageTables:
        """Return the tables of the pages that are there."""
        return self._tables_for(self._own_dimension(connection) or SharedTables.dim)

    def _tables_of(self, dim: int, connection: Connection) -> PageTables:
        """Return the tables of pages of `dim` dimensions.

        Raises:
            OtherModel: there are pages of another dimension.
        """
        find = self._own_dimension if dim == SharedTables.dim else self._found_dimension
        _check_dimension(find(connection), dim)
        return self._tables_for(dim)

    def _tables_for(self, dim: int) -> PageTables:
        has_maps = self._has.token_rows
        if dim == SharedTables.dim:
            return SharedTables(has_maps=has_maps)
        return OwnTables(dim, has_maps=has_maps)

    def _found_dimension(self, connection: Connection) -> int | None:
        """Return the dimension of the pages that a search finds, or None if there are none."""
        own = self._own_dimension(connection)
        return SharedTables.dim if own is None and has_shared_pages(connection) else own

    def _stored_dimension(self, connection: Connection) -> int | None:
        """Return the dimension of the pages that pagevec stored, or None if there are none."""
        own = self._own_dimension(connection)
        return (
            SharedTables.dim if own is None and has_shared_pages(connection, of_ours=True) else own
        )

    def _own_dimension(self, connection: Connection) -> int | None:
        return whole_pages_dimension(connection) if self._has.other_dimensions else None


def _check_dimension(known: int | None, dim: int) -> None:
    if known not in (None, dim):
        raise other_dimension(known, dim)


def _numbers(connection: Connection, tables: PageTables, document: str) -> frozenset[int]:
    rows = connection.execute(_HAS.format(source=tables.source), (document,)).fetchall()
    return frozenset(number for (number,) in rows)
