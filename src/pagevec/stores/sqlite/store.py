"""Pages in SQLite: one file in a folder, which holds all that is stored."""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pagevec.errors import StoreError
from pagevec.grid import PatchGrid
from pagevec.stores import hamming
from pagevec.stores.base import (
    EVERYTHING,
    DamagedPages,
    Filter,
    Store,
    TextMatch,
    check_rename,
    check_vectors,
    other_dimension,
)
from pagevec.stores.codec import (
    FINGERPRINT_FORMAT,
    VectorFormat,
    pack,
    read_fingerprint,
    unpack_unit,
)
from pagevec.stores.condense import pack_rows, unpack_rows
from pagevec.stores.sqlite import words
from pagevec.stores.sqlite.database import Database
from pagevec.stores.sqlite.ledger import SqliteLedger
from pagevec.stores.sqlite.lists import InvertedLists
from pagevec.stores.sqlite.segments import has_pages
from pagevec.stores.sqlite.space import give_back_space
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import sign_bytes

FILE = "pages.sqlite3"

log = logging.getLogger(__name__)

_PAGE = """
SELECT metadata, grid, text, thumbnail, coalesce(vectors, bits.packed), length(bits.packed),
    token_rows.packed
FROM pages JOIN bits ON bits.page = pages.id JOIN contents ON contents.page = pages.id
    LEFT JOIN token_rows ON token_rows.page = pages.id
WHERE document = ? AND number = ?
"""
# Texts and thumbnails come after the vectors in a row, so that they are not even read.
_VECTORS = _PAGE.replace("text, thumbnail,", "NULL, NULL,")
_HAS_METADATA = """NOT EXISTS (
    SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (
        SELECT 1 FROM json_each(metadata) AS own WHERE own.key = wanted.key
        AND own.type = wanted.type AND own.value IS wanted.value
    )
)"""
_KNOWN = "SELECT name FROM documents WHERE name IN (SELECT value FROM json_each(?1))"
_TAKEN = """
SELECT name FROM documents WHERE name IN (SELECT value FROM json_each(?1))
UNION SELECT document FROM pages WHERE document IN (SELECT value FROM json_each(?1))"""


class SqliteStore(Store):
    """A store in a folder of this machine.

    Args:
        path: the folder, created if it does not exist.
        vectors: how vectors are kept; None for the store's own format, float16 in a new store.

    Raises:
        StoreError: the folder holds something else than a store, or a store with vectors in
            another format.
    """

    def __init__(self, path: str | Path, vectors: VectorFormat | None = None) -> None:
        self._database = Database(_folder(path) / FILE)
        self._damaged = DamagedPages(f"the store {self._database.file}")
        self.ledger = SqliteLedger(self._database)
        try:
            self._format = self._open(vectors)
        except StoreError:
            self._database.close()
            raise
        self._lists = InvertedLists(self._database, self._format, self._damaged)

    def add(self, pages: Sequence[Page]) -> None:
        if not pages:
            return
        dim = check_vectors(pages)
        # Packed before the transaction, during which no other process can write.
        packed = [self._pack(page.vectors) for page in pages]
        terms = [words.as_row(page.text) for page in pages]
        with self._database.writing() as connection:
            _check_dimension(connection, dim)
            connection.execute("UPDATE store SET dim = ?1 WHERE dim IS NOT ?1", [dim])
            revision = _next_revision(connection)
            for page, (bits, vectors), row in zip(pages, packed, terms, strict=True):
                words.index(connection, _insert(connection, page, revision, bits, vectors), row)
        self._try_to_index()

    def has(self, document: str) -> frozenset[int]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT number FROM pages WHERE document = ?", [document])
            return frozenset(number for (number,) in rows)

    def delete(self, document: str) -> int:
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO deletions SELECT id, ? FROM pages WHERE document = ?",
                (_next_revision(connection), document),
            )
            connection.execute("DELETE FROM documents WHERE name = ?", [document])
            words.forget(connection, document)
            return connection.execute("DELETE FROM pages WHERE document = ?", [document]).rowcount

    def rename(self, names: Mapping[str, str]) -> None:
        with self._database.writing() as connection:
            known = connection.execute(_KNOWN, [json.dumps(list(names))])
            taken = connection.execute(_TAKEN, [json.dumps(list(names.values()))])
            check_rename(names, {name for (name,) in known}, {name for (name,) in taken})
            pairs = [(new, old) for old, new in names.items()]
            connection.executemany("UPDATE pages SET document = ? WHERE document = ?", pairs)
            connection.executemany("UPDATE documents SET name = ? WHERE name = ?", pairs)

    def prepare(self) -> None:
        with self._database.reading() as connection:
            self._lists.prepare(connection)

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        with self._database.reading() as connection:
            _check_dimension(connection, query.shape[1])
            if where != EVERYTHING or not has_pages(connection, hamming.SCAN_FROM):
                return _matching(connection, where)
            return _keys(connection, self._lists.best(connection, query, limit))

    def find_words(
        self, terms: Sequence[str], limit: int, keys: Sequence[PageKey]
    ) -> dict[PageKey, TextMatch]:
        with self._database.reading() as connection:
            return words.find(connection, terms, limit, keys)

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        with self._database.reading() as connection:
            return list(self._fetch(connection, _PAGE, keys))

    def fetch_vectors(self, keys: Sequence[PageKey]) -> Iterator[Page]:
        with self._database.reading() as connection:
            yield from self._fetch(connection, _VECTORS, keys)

    def index_pages(self, *, again: bool = False) -> int:
        if again:
            self._lists.discard()
        return self._lists.fold()

    def documents(self) -> dict[str, int]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT document, count(*) FROM pages GROUP BY document")
            return dict(rows.fetchall())

    def metadata_names(self) -> frozenset[str]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT key FROM pages, json_each(metadata)")
            return frozenset(name for (name,) in rows)

    def count(self) -> int:
        with self._database.reading() as connection:
            return _count(connection)

    def fingerprint(self) -> MultiVector | None:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT vectors, dim FROM probe").fetchall()
        return next((read_fingerprint(packed, dim) for packed, dim in rows), None)

    def save_fingerprint(self, vectors: MultiVector) -> None:
        packed = pack(vectors, FINGERPRINT_FORMAT)
        with self._database.writing() as connection:
            _check_dimension(connection, vectors.shape[1])
            if not _count(connection):
                connection.execute("DELETE FROM probe")
            connection.execute(
                "INSERT INTO probe SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM probe)",
                (vectors.shape[1], packed),
            )

    def condensing(self) -> float | None:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT threshold FROM condensing").fetchall()
        return next((float(threshold) for (threshold,) in rows), None)

    def save_condensing(self, threshold: float) -> None:
        with self._database.writing() as connection:
            connection.execute("DELETE FROM condensing")
            connection.execute("INSERT INTO condensing VALUES (?)", [threshold])

    def revise(self, keys: Sequence[PageKey], change: Callable[[Page], Page]) -> int:
        with self._database.writing() as connection:
            pages = list(self._fetch(connection, _PAGE, keys))
            changed = [new for page in pages if (new := change(page)) is not page]
            revision = _next_revision(connection) if changed else 0
            for page in changed:
                _insert(connection, page, revision, *self._pack(page.vectors))
        self._try_to_index()
        return len(changed)

    def give_back_space(self) -> str:
        return give_back_space(self._database)

    def close(self) -> None:
        self._lists.close()
        self._database.close()

    def _try_to_index(self) -> None:
        try:
            self.index_pages()
        except StoreError as error:  # pages are stored, and found without
            log.warning("pages wait to be put into the lists that make searches fast: %s", error)

    def _fetch(
        self, connection: sqlite3.Connection, statement: str, keys: Sequence[PageKey]
    ) -> Iterator[Page]:
        dim = _dim(connection)
        for key in keys:
            row, page = connection.execute(statement, (key.document, key.number)).fetchone(), None
            with self._damaged.noting(key):
                page = row and _page(key, dim, self._format, *row)
            if page:
                yield page

    def _open(self, wanted: VectorFormat | None) -> VectorFormat:
        self._database.create(wanted or "float16")
        with self._database.reading() as connection:
            [(form,)] = connection.execute("SELECT format FROM store")
        if wanted not in (None, form):
            raise StoreError(
                f"the store {self._database.file} keeps vectors as {form}, not {wanted}: "
                "open it without a format, or create a new one"
            )
        return form  # type: ignore[no-any-return]

    def _pack(self, vectors: MultiVector) -> tuple[bytes, bytes | None]:
        """Return the sign bits and the vectors; None for vectors that are kept as bits only."""
        bits = pack(vectors, "binary")
        return bits, None if self._format == "binary" else pack(vectors, self._format)


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot use the store {folder}: {error.strerror}") from error
    return folder


def _dim(connection: sqlite3.Connection) -> Any:
    """Return the dimension of the stored vectors, or None where there are no pages."""
    found = connection.execute("SELECT dim FROM store WHERE EXISTS (SELECT 1 FROM pages)")
    return next((dim for (dim,) in found), None)


def _check_dimension(connection: sqlite3.Connection, dim: int) -> None:
    known = _dim(connection)
    if known not in (None, dim):
        raise other_dimension(known, dim)


def _next_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE store SET revision = revision + 1")
    [(revision,)] = connection.execute("SELECT revision FROM store")
    return int(revision)


def _insert(
    connection: sqlite3.Connection, page: Page, revision: int, bits: bytes, vectors: bytes | None
) -> int:
    """Write a page, and return its id."""
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
    connection.execute("DELETE FROM token_rows WHERE page = ?", [number])
    if page.token_rows is not None:
        packed = pack_rows(page.token_rows)
        connection.execute("INSERT INTO token_rows VALUES (?, ?)", (number, packed))
    return int(number)


def _page(
    key: PageKey,
    dim: int,
    form: VectorFormat,
    metadata: str,
    grid: str | None,
    text: str | None,
    thumbnail: bytes | None,
    packed: bytes,
    bits_length: int,
    token_rows: bytes | None,
) -> Page:
    place = None if grid is None else PatchGrid(*json.loads(grid))
    vectors = unpack_unit(packed, dim, form, bits_length // sign_bytes(dim))
    rows = None if token_rows is None else unpack_rows(token_rows, len(vectors))
    return Page(key, vectors, json.loads(metadata), text, thumbnail, place, rows)


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
