"""The ledger of documents in PostgreSQL, with leases measured by the server's clock."""

from dataclasses import astuple

from pagevec.stores.base import Ledger
from pagevec.stores.postgres.connections import Connections
from pagevec.types import DocumentRecord

# As JSON, because an older table that may only be read has no column `version`.
_RECORD = """
SELECT name, content_hash, pages, complete, error, to_jsonb(one) ->> 'version'
FROM pagevec_documents AS one WHERE name = %s"""

# In the order of Python's strings, whatever the database's collation.
_RECORDS = """
SELECT name, content_hash, pages, complete, error, to_jsonb(one) ->> 'version'
FROM pagevec_documents AS one ORDER BY convert_to(name, 'UTF8')"""

_WRITE = """
INSERT INTO pagevec_documents (name, content_hash, pages, complete, error, version)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET content_hash = excluded.content_hash, pages = excluded.pages,
    complete = excluded.complete, error = excluded.error, version = excluded.version"""

# One statement, so that only one of two workers can win. A lease that would end later than one
# taken now is of before the server's clock was set back. Older workers do not tell how long theirs
# last: no longer than the option allows.
_LEASE = """
INSERT INTO pagevec_claims AS lease (document, claimed_by, claimed_until, seconds) VALUES
    (%(document)s, %(worker)s, clock_timestamp() + make_interval(secs => %(seconds)s), %(seconds)s)
ON CONFLICT (document) DO UPDATE
SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until,
    seconds = excluded.seconds
WHERE lease.claimed_by = excluded.claimed_by OR lease.claimed_until <= clock_timestamp()
    OR lease.claimed_until - make_interval(secs => coalesce(lease.seconds, 3600))
        > clock_timestamp()
RETURNING document"""

_RELEASE = "DELETE FROM pagevec_claims WHERE document = %s AND claimed_by = %s"

_LABELS = "SELECT label, folder FROM pagevec_labels"

_SET_LABEL = """
INSERT INTO pagevec_labels (label, folder) VALUES (%s, %s)
ON CONFLICT (label) DO UPDATE SET folder = excluded.folder"""


class PostgresLedger(Ledger):
    """Documents, leases and labels in tables of pagevec's own.

    The table of the leases has kept its old name, `pagevec_claims`.

    Args:
        connections: connections to the database.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def record(self, document: str) -> DocumentRecord | None:
        rows = self._connections.execute(_RECORD, (document,))
        return next((DocumentRecord(*row) for row in rows), None)

    def records(self) -> list[DocumentRecord]:
        return [DocumentRecord(*row) for row in self._connections.execute(_RECORDS)]

    def write(self, record: DocumentRecord) -> None:
        self._connections.execute(_WRITE, astuple(record))

    def lease(self, document: str, worker: str, seconds: float) -> bool:
        values = {"document": document, "worker": worker, "seconds": seconds}
        return bool(self._connections.execute(_LEASE, values))

    def release(self, document: str, worker: str) -> None:
        self._connections.execute(_RELEASE, (document, worker))

    def labels(self) -> dict[str, str]:
        return dict(self._connections.execute(_LABELS, is_optional=True))

    def set_label(self, label: str, folder: str) -> None:
        self._connections.execute(_SET_LABEL, (label, folder))
