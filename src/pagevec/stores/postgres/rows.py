"""Pages as rows of morphik-core's table, and of pagevec's own beside it.

Page n of a document is the row with chunk_number n - 1, because morphik-core counts from 0.
Nothing but convention keeps morphik-core from writing a page twice; then the row with the highest
id counts.
"""

import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pagevec.errors import StoreError
from pagevec.grid import PatchGrid
from pagevec.stores.base import DamagedPages, Filter, check_rename, check_vectors
from pagevec.stores.codec import VectorFormat, pack, unpack_unit
from pagevec.stores.hamming import PackedBits
from pagevec.stores.postgres.bits import DIM, NO_SIGNS, decode, digest, encode, try_to_decode
from pagevec.stores.postgres.connections import Connection
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import Quantized, dequantize

# `xmin` is the transaction that wrote the row: every change of the row changes it.
_ROWS = """
COPY (
    SELECT id, xmin::text::bigint, document_id, chunk_number + 1, chunk_metadata, {bits}
    FROM multi_vector_embeddings WHERE embeddings IS NOT NULL{condition}
) TO STDOUT (FORMAT BINARY)"""
_ROW_TYPES = ("int8", "int8", "text", "int4", "text", "bytea")

# First the newest row of each page; the big columns are read of those rows alone.
_PAGES = """
WITH newest AS (
    SELECT place, max(id) AS id
    FROM unnest(%s::text[], %s::int[]) WITH ORDINALITY AS wanted (document, number, place)
    JOIN multi_vector_embeddings ON document_id = document AND chunk_number = wanted.number - 1
    WHERE embeddings IS NOT NULL
    GROUP BY place
)
SELECT place, chunk_metadata, array_send(embeddings), row IS NOT NULL, content, signs, format,
    vectors, thumbnail, grid
FROM newest JOIN multi_vector_embeddings USING (id) LEFT JOIN pagevec_pages ON row = id"""

# The hash of a name as the key of a lock: two names with one hash merely wait for each other.
# Sorted, because two writers of the same documents could otherwise deadlock.
_LOCK = """
SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock(lock) FROM (
    SELECT DISTINCT hashtextextended(name, 0) AS lock FROM unnest(%s::text[]) AS name ORDER BY lock
) AS locks"""

# A rename keeps all writers away with one lock: the server's memory holds some thousands only.
_LOCK_ALL = "SELECT pg_advisory_xact_lock(%s)"
_ALL = 0x70616765766564  # any number, but not that of another lock

# morphik-core's index has only the document: scan each document's rows once, not for each page.
_DELETE_REPLACED = """
WITH present AS MATERIALIZED (
    SELECT id, document_id, chunk_number FROM multi_vector_embeddings
    WHERE document_id = ANY(%(names)s)
)
DELETE FROM multi_vector_embeddings WHERE id IN (
    SELECT id FROM present JOIN unnest(%(names)s::text[], %(numbers)s::int[])
        AS replaced (document, number) ON document_id = document AND chunk_number = number - 1
)"""
_DELETE_OURS_REPLACED = """
DELETE FROM pagevec_pages AS ours
USING unnest(%(names)s::text[], %(numbers)s::int[]) AS replaced (document, number)
WHERE ours.document = replaced.document AND ours.number = replaced.number"""

# PostgreSQL tries to compress the bits of each page. With its default method that takes four times
# as long as everything else, with lz4 next to nothing. The method is stored with each value, so
# morphik-core can read both.
_COMPRESS_FAST = """
SELECT set_config(name, 'lz4', true) FROM pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)"""

_NEW_IDS = """
SELECT nextval(pg_get_serial_sequence('multi_vector_embeddings', 'id'))
FROM generate_series(1, %s)"""

_COPY_THEIRS = """
COPY multi_vector_embeddings
    (id, document_id, chunk_number, content, chunk_metadata, embeddings)
FROM STDIN (FORMAT BINARY)"""
_THEIR_TYPES = ("int8", "text", "int4", "text", "text", "bytea")

_COPY_OURS = """
COPY pagevec_pages
    (row, document, number, signs, format, vectors, thumbnail, grid)
FROM STDIN (FORMAT BINARY)"""
_OUR_TYPES = ("int8", "text", "int4", "bytea", "text", "bytea", "bytea", "int4[]")

_KNOWN = "SELECT name FROM pagevec_documents WHERE name = ANY(%(names)s)"
_TAKEN = """
SELECT name FROM pagevec_documents WHERE name = ANY(%(names)s)
UNION SELECT document_id FROM multi_vector_embeddings WHERE document_id = ANY(%(names)s)"""
_RENAME = """
UPDATE {table} SET {column} = renamed.new
FROM unnest(%s::text[], %s::text[]) AS renamed (old, new) WHERE {column} = renamed.old"""

DOCUMENT_COLUMNS = {
    "multi_vector_embeddings": "document_id",
    "pagevec_pages": "document",
    "pagevec_documents": "name",
}
"""The tables that hold a document, and their columns with its name."""


@dataclass(frozen=True, eq=False)
class Row:
    """What a search needs of a row.

    Attributes:
        id: of the row in morphik-core's table.
        version: changes with every change of the row.
        key: of the page.
        metadata: of the page.
        signs: sign bits of the page, uint8 (vectors, 16).
        fault: why its sign bits cannot be read, and it has none, where that is so.
    """

    id: int
    version: int
    key: PageKey
    metadata: dict[str, Any]
    signs: PackedBits
    fault: ValueError | None = None

    def without_signs(self) -> "Row":
        """Return the row without its bits, for when a `BitIndex` holds them."""
        return replace(self, signs=NO_SIGNS)

    def passes(self, where: Filter) -> bool:
        """Whether a search under `where` considers this row."""
        if where.documents and self.key.document not in where.documents:
            return False
        # In JSON, 1 is neither true nor 1.0; in Python they are equal.
        own = ((self.metadata.get(key, ...), value) for key, value in where.metadata.items())
        return all(type(has) is type(value) and has == value for has, value in own)


def read_rows(
    connection: Connection,
    *,
    ids: Sequence[int] = (),
    documents: Sequence[str] = (),
    bits: bool = True,
) -> Iterator[Row]:
    """Yield the rows with `ids`, or of `documents`, or all rows; with or without their bits."""
    column, values = ("id", list[Any](ids)) if ids else ("document_id", list[Any](documents))
    condition = f" AND {column} = ANY(%s)" if values else ""
    statement = _ROWS.format(bits="embeddings" if bits else "NULL", condition=condition).encode()
    with connection.cursor().copy(statement, (values,) if values else None) as copy:
        copy.set_types(_ROW_TYPES)
        for row, version, document, number, metadata, array in copy.rows():
            key = PageKey(document, number)
            signs, fault = try_to_decode(array)
            yield Row(row, version, key, _parse(metadata), signs, fault)


def read_pages(
    connection: Connection, keys: Sequence[PageKey], damaged: DamagedPages
) -> list[Page]:
    """Return the pages of `keys`, in their order, without those that are gone.

    Pages that cannot be read are left out, too, and noted in `damaged`.
    """
    documents, numbers = [key.document for key in keys], [key.number for key in keys]
    rows = connection.execute(_PAGES, (documents, numbers), binary=True).fetchall()
    # Sorted here, because the server would carry the vectors through its sort.
    rows.sort(key=lambda row: int(row[0]))
    pages = []
    for place, *columns in rows:
        with damaged.noting(keys[place - 1]):
            pages.append(_page(keys[place - 1], *columns))
    return pages


def lock_documents(connection: Connection, documents: Iterable[str]) -> None:
    """Keep other writers of pagevec from these documents until the transaction ends."""
    connection.execute(_LOCK, (_ALL, list(documents)))


def write_pages(connection: Connection, pages: Sequence[Page], form: VectorFormat) -> None:
    """Write `pages`, replacing those with the same keys.

    Args:
        connection: a connection in a transaction.
        pages: with vectors of shape (vectors, 128); no key twice.
        form: how to keep the vectors.

    Raises:
        StoreError: the vectors do not have the 128 dimensions of the column's type, or are not of
            unit length.
    """
    for page in pages:
        check_dimension(page.vectors)
    check_vectors(pages)
    names, numbers = [page.key.document for page in pages], [page.key.number for page in pages]
    lock_documents(connection, names)
    for statement in (_DELETE_REPLACED, _DELETE_OURS_REPLACED):
        connection.execute(statement, {"names": names, "numbers": numbers})
    connection.execute(_COMPRESS_FAST)
    ids = [row[0] for row in connection.execute(_NEW_IDS, (len(pages),))]
    _copy(connection, _COPY_THEIRS, _THEIR_TYPES, map(_their_row, ids, pages))
    _copy(connection, _COPY_OURS, _OUR_TYPES, map(partial(_our_row, form), ids, pages))


def rename_documents(connection: Connection, names: Mapping[str, str]) -> None:
    """Rename documents of pagevec's ledger, with all their rows.

    Args:
        connection: a connection in a transaction.
        names: the new name for each old name.

    Raises:
        StoreError: an old name is not in the ledger, or a new name is taken.
    """
    old, new = list(names), list(names.values())
    connection.execute(_LOCK_ALL, (_ALL,))
    known, taken = (
        {name for (name,) in connection.execute(statement, {"names": listed})}
        for statement, listed in ((_KNOWN, old), (_TAKEN, new))
    )
    check_rename(names, known, taken)
    # Left over from documents that morphik-core deleted.
    connection.execute("DELETE FROM pagevec_pages WHERE document = ANY(%s)", (new,))
    for table, column in DOCUMENT_COLUMNS.items():
        connection.execute(_RENAME.format(table=table, column=column), (old, new))


def check_dimension(vectors: MultiVector) -> None:
    """Raise StoreError if `vectors` (vectors, dim) do not fit the type of the column."""
    if vectors.shape[1] != DIM:
        raise StoreError(
            f"a store in PostgreSQL holds vectors of {DIM} dimensions, "
            f"these have {vectors.shape[1]}: use another model or another store"
        )


def _page(
    key: PageKey, metadata: str | None, bits: bytes, ours: bool, content: str, *columns: Any
) -> Page:
    signs = decode(bits)
    if not ours:
        # Their content may be an image, or the name of a file in morphik-core's storage.
        return Page(key, _vectors_of_signs(signs), _parse(metadata))
    expected, form, packed, thumbnail, grid = columns
    # Other bits than ours were when we wrote them: the page was replaced, our vectors are old.
    only_signs = packed is None or expected != digest(signs)
    vectors = _vectors_of_signs(signs) if only_signs else unpack_unit(packed, DIM, form, len(signs))
    place = PatchGrid(*grid) if grid else None
    return Page(key, vectors, _parse(metadata), content or None, thumbnail, place)


def _vectors_of_signs(signs: PackedBits) -> MultiVector:
    return dequantize(Quantized(signs), "binary")


def _parse(metadata: str | None) -> dict[str, Any]:
    """Return a row's metadata, from JSON or from `str(dict)` as older morphik-core wrote it."""
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            parsed = parse(metadata or "{}")
            return parsed if isinstance(parsed, dict) else {}
    return {}


def _copy(
    connection: Connection, statement: str, types: Sequence[str], rows: Iterator[tuple[Any, ...]]
) -> None:
    with connection.cursor().copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def _their_row(row: int, page: Page) -> tuple[Any, ...]:
    content, metadata = _storable(page.text or ""), json.dumps(dict(page.metadata), allow_nan=False)
    bits = encode(np.packbits(page.vectors > 0, axis=-1))
    return row, page.key.document, page.key.number - 1, content, metadata, bits


def _our_row(form: VectorFormat, row: int, page: Page) -> tuple[Any, ...]:
    signs = digest(np.packbits(page.vectors > 0, axis=-1))
    # The sign bits are in morphik-core's row already.
    vectors = None if form == "binary" else pack(page.vectors, form)
    grid = page.grid and [page.grid.rows, page.grid.columns, page.grid.first]
    key = (page.key.document, page.key.number)
    return row, *key, signs, form, vectors, page.thumbnail, grid


def _storable(text: str) -> str:
    """Return `text` without NUL and lone surrogates, which PDFs' text layers may have."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
