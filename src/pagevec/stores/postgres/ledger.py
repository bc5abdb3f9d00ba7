"""The ledger of documents in PostgreSQL, and claims that end by the server's clock."""

from pagevec.stores.postgres.connections import Connections
from pagevec.types import DocumentRecord

_RECORD = """
SELECT name, content_hash, pages, complete, error FROM pagevec_documents WHERE name = %s"""

# In the order of Python's strings, whatever language the database sorts in.
_RECORDS = """
SELECT name, content_hash, pages, complete, error FROM pagevec_documents
ORDER BY convert_to(name, 'UTF8')"""

_WRITE = """
INSERT INTO pagevec_documents (name, content_hash, pages, complete, error)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET content_hash = excluded.content_hash, pages = excluded.pages,
    complete = excluded.complete, error = excluded.error"""

# One statement, so that of two workers only one can win.
_CLAIM = """
INSERT INTO pagevec_claims AS claim VALUES
    (%s, %s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT (document) DO UPDATE
SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
WHERE claim.claimed_by = excluded.claimed_by OR claim.claimed_until <= clock_timestamp()
RETURNING document"""


class PostgresLedger:
    """`Ledger` in the tables `pagevec_documents` and `pagevec_claims`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def record(self, document: str) -> DocumentRecord | None:
        """Return what is known of `document`."""
        with self._connections.transaction() as connection:
            row = connection.execute(_RECORD, (document,)).fetchone()
        return DocumentRecord(*row) if row else None

    def records(self) -> list[DocumentRecord]:
        """Return all records, by name."""
        with self._connections.transaction() as connection:
            return [DocumentRecord(*row) for row in connection.execute(_RECORDS)]

    def write(self, record: DocumentRecord) -> None:
        """Insert or replace the record of a document, durably."""
        values = (record.name, record.content_hash, record.pages, record.complete, record.error)
        with self._connections.transaction() as connection:
            connection.execute(_WRITE, values)

    def claim(self, document: str, worker: str, seconds: float) -> bool:
        """Take `document` for `worker` for so long, unless another worker has it. Renewable."""
        with self._connections.transaction() as connection:
            taken = connection.execute(_CLAIM, (document, worker, seconds)).fetchone()
        return taken is not None

    def release(self, document: str, worker: str) -> None:
        """Give a claim back; one that another worker has by now stays."""
        statement = "DELETE FROM pagevec_claims WHERE document = %s AND claimed_by = %s"
        with self._connections.transaction() as connection:
            connection.execute(statement, (document, worker))
