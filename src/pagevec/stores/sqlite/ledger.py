"""The ledger of the embedded store: what is known of each document, and who works on it."""

import time

from pagevec.stores.sqlite.database import Database
from pagevec.types import DocumentRecord


class SqliteLedger:
    """Documents and claims in a store's file. Claims go by the machine's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, document: str) -> DocumentRecord | None:
        """Return what is known of `document`."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM documents WHERE name = ?", [document])
            return next((_record(*values) for values in row), None)

    def records(self) -> list[DocumentRecord]:
        """Return all records, by name."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM documents ORDER BY name")
            return [_record(*values) for values in rows]

    def write(self, record: DocumentRecord) -> None:
        """Insert or replace the record of a document, durably."""
        values = (record.name, record.content_hash, record.pages, record.complete, record.error)
        with self._database.writing() as connection:
            connection.execute("REPLACE INTO documents VALUES (?, ?, ?, ?, ?)", values)

    def claim(self, document: str, worker: str, seconds: float) -> bool:
        """Take `document` for `worker` for so long, unless another worker has it. Renewable."""
        now = time.time()
        with self._database.writing() as connection:
            taken = connection.execute(
                "INSERT INTO claims VALUES (?, ?, ?) ON CONFLICT (document) DO UPDATE"
                " SET worker = excluded.worker, expires = excluded.expires"
                " WHERE worker = excluded.worker OR expires <= ?",
                (document, worker, now + seconds, now),
            )
            return taken.rowcount == 1

    def release(self, document: str, worker: str) -> None:
        """Give a claim back; another worker's stays."""
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM claims WHERE document = ? AND worker = ?", (document, worker)
            )


def _record(
    name: str, content_hash: str, pages: int | None, complete: int, error: str | None
) -> DocumentRecord:
    return DocumentRecord(name, content_hash, pages, bool(complete), error)
