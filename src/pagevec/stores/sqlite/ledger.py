"""The ledger of documents in a store's SQLite file."""

import time
from dataclasses import astuple

from pagevec.stores.base import Ledger
from pagevec.stores.sqlite.database import Database
from pagevec.types import DocumentRecord

# One statement, so that only one of two workers can win.
_LEASE = """
INSERT INTO leases VALUES (?1, ?2, ?3, ?4) ON CONFLICT (document) DO UPDATE
SET worker = excluded.worker, renewed = excluded.renewed, seconds = excluded.seconds
WHERE worker = excluded.worker OR NOT (?3 >= renewed AND ?3 < renewed + seconds)"""


class SqliteLedger(Ledger):
    """Documents, leases and labels in the file of a store.

    Leases are measured with the clock that all processes of this machine share and nobody sets,
    `time.monotonic`; a store in WAL mode is used from one machine anyway. That clock starts anew
    with the machine, so a lease that was renewed "later than now" is of a worker that is no more.
    A counter that others watch would not need a clock, but each new worker would have to watch for
    the whole time of a lease before it could go on where a killed one stopped.

    Args:
        database: the store's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, document: str) -> DocumentRecord | None:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM documents WHERE name = ?", [document])
            return next((_record(*row) for row in rows), None)

    def records(self) -> list[DocumentRecord]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM documents ORDER BY name")
            return [_record(*row) for row in rows]

    def write(self, record: DocumentRecord) -> None:
        with self._database.writing() as connection:
            connection.execute("REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", astuple(record))

    def lease(self, document: str, worker: str, seconds: float) -> bool:
        with self._database.writing() as connection:
            now = time.monotonic()  # not before the wait for others, whose leases would be later
            leased = connection.execute(_LEASE, (document, worker, now, seconds))
            return leased.rowcount == 1

    def release(self, document: str, worker: str) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM leases WHERE document = ? AND worker = ?", (document, worker)
            )

    def labels(self) -> dict[str, str]:
        with self._database.reading() as connection:
            return dict(connection.execute("SELECT label, folder FROM labels").fetchall())

    def set_label(self, label: str, folder: str) -> None:
        with self._database.writing() as connection:
            connection.execute("REPLACE INTO labels VALUES (?, ?)", (label, folder))


def _record(
    name: str,
    content_hash: str,
    pages: int | None,
    complete: int,
    error: str | None,
    version: str | None = None,  # an older store that cannot be written has no such column
) -> DocumentRecord:
    return DocumentRecord(name, content_hash, pages, bool(complete), error, version)
