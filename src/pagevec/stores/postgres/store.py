"""Pages in PostgreSQL, in morphik-core's own table: both programs read and write the same rows.

morphik-core's table `multi_vector_embeddings` holds the sign bits, the text and the metadata of
each page; `pagevec_pages` holds what it has no column for: vectors in float16 or int8, thumbnail
and patch grid. Pages that morphik-core wrote have sign bits alone. pgvector is not needed: none of
its types is used, as this process compares bits faster than anything in SQL.
"""

from collections.abc import Mapping, Sequence

from pagevec.errors import NoStore
from pagevec.stores.base import (
    EVERYTHING,
    NO_STORE,
    DamagedPages,
    Filter,
    Store,
)
from pagevec.stores.codec import FINGERPRINT_FORMAT, VectorFormat, pack, read_fingerprint
from pagevec.stores.postgres.bits import DIM
from pagevec.stores.postgres.cache import BitCache, stream_candidates
from pagevec.stores.postgres.connections import Connections
from pagevec.stores.postgres.ledger import PostgresLedger
from pagevec.stores.postgres.rows import (
    DOCUMENT_COLUMNS,
    check_dimension,
    lock_documents,
    read_pages,
    read_rows,
    rename_documents,
    write_pages,
)
from pagevec.stores.postgres.schema import has_pages_table, prepare
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import quantize

CACHE_BYTES = 2 << 30
"""Bits that the process may cache, by their size in the table: 120,000 pages of 700 vectors."""

_HAS = """
SELECT DISTINCT chunk_number + 1 FROM multi_vector_embeddings
WHERE document_id = %s AND embeddings IS NOT NULL"""

_FORGET_FINGERPRINT = """
DELETE FROM pagevec_probe WHERE NOT EXISTS (
    SELECT FROM multi_vector_embeddings WHERE embeddings IS NOT NULL
)"""
_SAVE_FINGERPRINT = "INSERT INTO pagevec_probe (vectors) VALUES (%s) ON CONFLICT DO NOTHING"

_DOCUMENTS = """
SELECT document_id, count(DISTINCT chunk_number) FROM multi_vector_embeddings
WHERE embeddings IS NOT NULL GROUP BY document_id"""

_COUNT = """
SELECT count(*) FROM (
    SELECT DISTINCT document_id, chunk_number FROM multi_vector_embeddings
    WHERE embeddings IS NOT NULL
) AS pages"""


class PostgresStore(Store):
    """A store in a database of PostgreSQL 14 or newer; its vectors have 128 dimensions.

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
            prepare(connection)

    def add(self, pages: Sequence[Page]) -> None:
        latest = {page.key: page for page in pages}
        if latest:
            with self._connections.transaction() as connection:
                write_pages(connection, list(latest.values()), self._format)

    def has(self, document: str) -> frozenset[int]:
        return frozenset(number for (number,) in self._connections.execute(_HAS, (document,)))

    def delete(self, document: str) -> int:
        with self._connections.transaction() as connection:
            lock_documents(connection, [document])
            pages = len(connection.execute(_HAS, (document,)).fetchall())
            for table, column in DOCUMENT_COLUMNS.items():
                connection.execute(f"DELETE FROM {table} WHERE {column} = %s", (document,))  # noqa: S608
        return pages

    def rename(self, names: Mapping[str, str]) -> None:
        with self._connections.transaction() as connection:
            rename_documents(connection, names)

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        check_dimension(query)
        self._connections.check_process()  # before a lock, which a fork may have left locked
        signs = quantize(query, "binary").values
        nearest = self._cache.candidates(signs, limit, where)
        if nearest is not None:
            return nearest
        with self._connections.transaction() as connection:
            return stream_candidates(connection, self._damaged, signs, limit, where)

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        with self._connections.transaction() as connection:
            return read_pages(connection, keys, self._damaged)

    def documents(self) -> dict[str, int]:
        return dict(self._connections.execute(_DOCUMENTS))

    def metadata_names(self) -> frozenset[str]:
        with self._connections.transaction() as connection:
            rows = read_rows(connection, bits=False)
            return frozenset(name for row in rows for name in row.metadata)

    def count(self) -> int:
        [(count,)] = self._connections.execute(_COUNT)
        return int(count)

    def fingerprint(self) -> MultiVector | None:
        rows = self._connections.execute("SELECT vectors FROM pagevec_probe", is_optional=True)
        return next((read_fingerprint(packed, DIM) for (packed,) in rows), None)

    def save_fingerprint(self, vectors: MultiVector) -> None:
        check_dimension(vectors)
        with self._connections.transaction() as connection:
            connection.execute(_FORGET_FINGERPRINT)
            connection.execute(_SAVE_FINGERPRINT, (pack(vectors, FINGERPRINT_FORMAT),))

    def close(self) -> None:
        self._connections.close()
