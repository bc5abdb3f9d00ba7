"""Pages in PostgreSQL, in morphik-core's own table: both programs read and write the same rows.

Their table `multi_vector_embeddings` holds the sign bits, the text and the metadata of each page;
`pagevec_pages` beside it what they have no column for: vectors in int8 or float16, thumbnail and
grid. Pages that morphik-core wrote have signs alone. pgvector may be there or not: none of its
types is used, as comparing bits in this process is faster than anything in SQL.
"""

from collections.abc import Sequence

from pagevec.stores.base import EVERYTHING, Filter
from pagevec.stores.codec import PROBE_FORMAT, Format, pack, unpack
from pagevec.stores.postgres.bits import DIM
from pagevec.stores.postgres.cache import BitCache, streamed_candidates
from pagevec.stores.postgres.connections import Connections
from pagevec.stores.postgres.ledger import PostgresLedger
from pagevec.stores.postgres.read import read_pages
from pagevec.stores.postgres.schema import prepare
from pagevec.stores.postgres.write import check_dimension, lock_documents, write_pages
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import quantize

CACHE_BYTES = 2 << 30
"""Bits that are kept in the process, in bytes of the table: 120,000 pages of 700 vectors."""

_HAS = """
SELECT DISTINCT chunk_number + 1 FROM multi_vector_embeddings
WHERE document_id = %s AND embeddings IS NOT NULL"""

_FORGET_PROBE = """
DELETE FROM pagevec_probe WHERE NOT EXISTS (
    SELECT FROM multi_vector_embeddings WHERE embeddings IS NOT NULL
)"""
_KEEP_PROBE = "INSERT INTO pagevec_probe (vectors) VALUES (%s) ON CONFLICT DO NOTHING"

_COUNT = """
SELECT count(*) FROM (
    SELECT DISTINCT document_id, chunk_number FROM multi_vector_embeddings
    WHERE embeddings IS NOT NULL
) AS pages"""


class PostgresStore(PostgresLedger):
    """A `DocumentStore` in the database at `url`; PostgreSQL 14 or newer."""

    def __init__(
        self, url: str, *, vectors: Format = "float16", cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Connect and make the tables that are not there.

        Raises:
            StoreError: the server cannot be reached, or does not let us make them.
        """
        super().__init__(Connections(url))
        self._format = vectors
        self._cache = BitCache(self._connections, cache_bytes)
        with self._connections.transaction() as connection:
            prepare(connection)

    def add(self, pages: Sequence[Page]) -> None:
        """Store `pages`, replacing those with the same key; all of them, durably, or none.

        Raises:
            StoreError: the vectors do not have 128 dimensions.
        """
        latest = {page.key: page for page in pages}
        if latest:
            with self._connections.transaction() as connection:
                write_pages(connection, list(latest.values()), self._format)

    def has(self, document: str) -> frozenset[int]:
        """Return the numbers of the pages of `document` that are stored."""
        with self._connections.transaction() as connection:
            return frozenset(row[0] for row in connection.execute(_HAS, (document,)))

    def delete(self, document: str) -> int:
        """Remove a document: its pages and its ledger record. Return how many pages it had."""
        with self._connections.transaction() as connection:
            lock_documents(connection, [document])
            pages = len(connection.execute(_HAS, (document,)).fetchall())
            for table, column in _OF_A_DOCUMENT:
                connection.execute(f"DELETE FROM {table} WHERE {column} = %s", (document,))  # noqa: S608
        return pages

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        """Return pages worth scoring exactly for `query` (vectors, 128), the likeliest first.

        As in the embedded store: all of them where there are few or where a filter is given, else
        the `limit` nearest by their sign bits.

        Raises:
            StoreError: the query does not have 128 dimensions.
        """
        check_dimension(query)
        signs = quantize(query, "binary").values
        nearest = self._cache.candidates(signs, limit, where)
        if nearest is not None:
            return nearest
        with self._connections.transaction() as connection:
            return streamed_candidates(connection, signs, limit, where)

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        """Return the pages of `keys`, in their order; those that are gone are left out."""
        with self._connections.transaction() as connection:
            return read_pages(connection, keys)

    def count(self) -> int:
        """Return the number of pages."""
        with self._connections.transaction() as connection:
            row = connection.execute(_COUNT).fetchone()
        return int(row[0]) if row else 0

    def probe(self) -> MultiVector | None:
        """Return what the pages' model makes of the probe text, where that is known."""
        with self._connections.transaction() as connection:
            row = connection.execute("SELECT vectors FROM pagevec_probe").fetchone()
        return None if row is None else unpack(row[0], DIM, PROBE_FORMAT)

    def keep_probe(self, vectors: MultiVector) -> None:
        """Keep what the model makes of the probe text, unless there are pages and it is known.

        Raises:
            StoreError: the vectors do not have 128 dimensions.
        """
        check_dimension(vectors)
        with self._connections.transaction() as connection:
            connection.execute(_FORGET_PROBE)
            connection.execute(_KEEP_PROBE, (pack(vectors, PROBE_FORMAT),))

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()


_OF_A_DOCUMENT = (
    ("multi_vector_embeddings", "document_id"),
    ("pagevec_pages", "document"),
    ("pagevec_documents", "name"),
)
