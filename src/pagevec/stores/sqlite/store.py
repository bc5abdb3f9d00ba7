"""The embedded store: one SQLite file in a folder, its sign bits in memory while it is searched."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pagevec.errors import StoreError
from pagevec.grid import PatchGrid
from pagevec.stores.base import EVERYTHING, Filter
from pagevec.stores.codec import PROBE_FORMAT, Format, pack, unpack
from pagevec.stores.sqlite.database import Database
from pagevec.stores.sqlite.ledger import SqliteLedger
from pagevec.stores.sqlite.replica import BitMirror
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import quantize

FILE = "pages.sqlite3"
SCAN_FROM = 2000
"""With fewer pages than this every page is a candidate: scoring them all is quick and exact."""

_PAGE = """
SELECT metadata, grid, text, thumbnail, coalesce(vectors, packed)
FROM pages JOIN bits ON bits.page = pages.id JOIN contents ON contents.page = pages.id
WHERE document = ? AND number = ?
"""
_HAS_METADATA = """NOT EXISTS (
    SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (
        SELECT 1 FROM json_each(metadata) AS own WHERE own.key = wanted.key
        AND own.type = wanted.type AND own.value IS wanted.value
    )
)"""


class EmbeddedStore(SqliteLedger):
    """Pages in a folder of this machine. Several threads and processes may use it at once.

    Args:
        path: the folder, made where it is missing.
        vectors: how vectors are kept; default: as the store has them, float16 in a new one.

    Raises:
        StoreError: by the constructor where the folder holds no store, or one with vectors in
            another format; by every method where the file cannot be read or written.
    """

    def __init__(self, path: str | Path, vectors: Format | None = None) -> None:
        super().__init__(Database(_folder(path) / FILE))
        self._mirror = BitMirror()
        try:
            self._format = self._opened(vectors)
        except StoreError:
            self.close()
            raise

    def add(self, pages: Sequence[Page]) -> None:
        """Store `pages`, replacing those with the same key; all of them, durably, or none.

        Raises:
            StoreError: the vectors have another dimension than those in the store.
        """
        if not pages:
            return
        dim = _dimension(pages)
        # The other writers wait for the transaction only, not for this work.
        packed = [self._packed(page.vectors) for page in pages]
        with self._database.writing() as connection:
            _agree_on(connection, dim)
            revision = _next_revision(connection)
            for page, (bits, vectors) in zip(pages, packed, strict=True):
                _insert(connection, page, revision, bits, vectors)

    def has(self, document: str) -> frozenset[int]:
        """Return the numbers of the pages of `document` that are stored."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT number FROM pages WHERE document = ?", [document])
            return frozenset(number for (number,) in rows)

    def delete(self, document: str) -> int:
        """Remove a document: its pages and its ledger record. Return how many pages it had."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO deletions SELECT id, ? FROM pages WHERE document = ?",
                (_next_revision(connection), document),
            )
            connection.execute("DELETE FROM documents WHERE name = ?", [document])
            return connection.execute("DELETE FROM pages WHERE document = ?", [document]).rowcount

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        """Return pages worth scoring exactly for `query` (vectors, dim), the likeliest first.

        All of them where there are few or where a filter is given, else the `limit` nearest by
        their sign bits.

        Raises:
            StoreError: the query has another dimension than the vectors in the store.
        """
        with self._database.reading() as connection:
            _check(connection, query.shape[1])
            if where != EVERYTHING or _count(connection) < SCAN_FROM:
                return _matching(connection, where)
            bits = quantize(query, "binary").values
            return _keys(connection, self._mirror.best(connection, bits, limit))

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        """Return the pages of `keys`, in their order; those that are gone are left out."""
        with self._database.reading() as connection:
            rows = (
                (key, connection.execute(_PAGE, (key.document, key.number)).fetchone())
                for key in keys
            )
            dim = _dim(connection)
            return [_page(key, dim, self._format, *row) for key, row in rows if row is not None]

    def count(self) -> int:
        """Return the number of pages."""
        with self._database.reading() as connection:
            return _count(connection)

    def probe(self) -> MultiVector | None:
        """Return what the pages' model makes of the probe text, where that is known."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT vectors, dim FROM probe").fetchall()
        return next((unpack(packed, dim, PROBE_FORMAT) for packed, dim in rows), None)

    def keep_probe(self, vectors: MultiVector) -> None:
        """Keep what the model makes of the probe text, unless there are pages and it is known."""
        packed = pack(vectors, PROBE_FORMAT)
        with self._database.writing() as connection:
            if not _count(connection):
                connection.execute("DELETE FROM probe")
            connection.execute(
                "INSERT INTO probe SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM probe)",
                (vectors.shape[1], packed),
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _opened(self, wanted: Format | None) -> Format:
        self._database.create(wanted or "float16")
        with self._database.reading() as connection:
            [(form,)] = connection.execute("SELECT format FROM store")
        if wanted not in (None, form):
            raise StoreError(
                f"the store {self._database.file} keeps vectors as {form}, not {wanted}: "
                "open it without a format, or make a new one"
            )
        return form  # type: ignore[no-any-return]

    def _packed(self, vectors: MultiVector) -> tuple[bytes, bytes | None]:
        """Return the sign bits, and the vectors unless they are kept as sign bits only."""
        bits = pack(vectors, "binary")
        return bits, None if self._format == "binary" else pack(vectors, self._format)


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the store {folder} cannot be used: {error.strerror}") from error
    return folder


def _dimension(pages: Sequence[Page]) -> int:
    shapes = {page.vectors.shape[1:] for page in pages}
    [dim] = shapes.pop() if len(shapes) == 1 else (0,)
    if dim % 8 or dim == 0:
        raise StoreError("all pages of a store have vectors of one dimension, a multiple of 8")
    return int(dim)


def _dim(connection: sqlite3.Connection) -> Any:
    """Return the dimension of the stored vectors, or None before the first."""
    [(dim,)] = connection.execute("SELECT dim FROM store")
    return dim


def _agree_on(connection: sqlite3.Connection, dim: int) -> None:
    connection.execute("UPDATE store SET dim = ? WHERE dim IS NULL", [dim])
    _check(connection, dim)


def _check(connection: sqlite3.Connection, dim: int) -> None:
    known = _dim(connection)
    if known not in (None, dim):
        raise StoreError(
            f"the store has vectors of {known} dimensions, these have {dim}: "
            "pages and queries of one store come from one model"
        )


def _next_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE store SET revision = revision + 1")
    [(revision,)] = connection.execute("SELECT revision FROM store")
    return int(revision)


def _insert(
    connection: sqlite3.Connection, page: Page, revision: int, bits: bytes, vectors: bytes | None
) -> None:
    grid = page.grid and json.dumps([page.grid.rows, page.grid.columns, page.grid.first])
    metadata = json.dumps(dict(page.metadata), allow_nan=False)
    [(number,)] = connection.execute(
        "INSERT INTO pages (document, number, revision, metadata, grid) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET revision = excluded.revision,"
        " metadata = excluded.metadata, grid = excluded.grid RETURNING id",
        (page.key.document, page.key.number, revision, metadata, grid),
    ).fetchall()
    connection.execute("REPLACE INTO bits VALUES (?, ?)", (number, bits))
    connection.execute(
        "REPLACE INTO contents VALUES (?, ?, ?, ?)", (number, vectors, page.text, page.thumbnail)
    )


def _page(
    key: PageKey,
    dim: int,
    form: Format,
    metadata: str,
    grid: str | None,
    text: str | None,
    thumbnail: bytes | None,
    packed: bytes,
) -> Page:
    place = None if grid is None else PatchGrid(*json.loads(grid))
    return Page(key, unpack(packed, dim, form), json.loads(metadata), text, thumbnail, place)


def _count(connection: sqlite3.Connection) -> int:
    [(count,)] = connection.execute("SELECT count(*) FROM pages")
    return int(count)


def _matching(connection: sqlite3.Connection, where: Filter) -> list[PageKey]:
    conditions, values = ["TRUE"], list[Any]()
    if where.documents:
        conditions.append("document IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(sorted(where.documents)))
    if where.metadata:
        conditions.append(_HAS_METADATA)
        values.append(json.dumps(dict(where.metadata)))
    rows = connection.execute(
        f"SELECT document, number FROM pages WHERE {' AND '.join(conditions)}"  # noqa: S608
        " ORDER BY document, number",
        values,
    )
    return [PageKey(*row) for row in rows]


def _keys(connection: sqlite3.Connection, pages: Sequence[int]) -> list[PageKey]:
    rows = connection.execute(
        "SELECT document, number FROM json_each(?) AS best JOIN pages ON pages.id = best.value"
        " ORDER BY best.key",
        [json.dumps(pages)],
    )
    return [PageKey(*row) for row in rows]
