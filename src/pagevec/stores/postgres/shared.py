"""Pages of 128 dimensions: rows of morphik-core's table, and of pagevec's own beside it.

Page n of a document is the row with chunk_number n - 1, because morphik-core counts from 0.
Nothing but convention keeps morphik-core from writing a page twice; then the row with the highest
id counts. Their content may be an image, or the name of a file in morphik-core's storage.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, LiteralString

from pagevec.grid import PatchGrid
from pagevec.stores.base import DamagedPages
from pagevec.stores.codec import VectorFormat, pack, unpack_unit
from pagevec.stores.postgres.bits import DIM, decode, digest, encode, literal
from pagevec.stores.postgres.connections import Connection
from pagevec.stores.postgres.rows import (
    Held,
    PageTables,
    copy_rows,
    grid_column,
    parse_metadata,
    read_token_rows,
    rows_column,
    select_pages,
    text_columns,
)
from pagevec.stores.probe import PackedBits
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import Quantized, dequantize, quantize

# `xmin` is the transaction that wrote the row: every change of the row changes it.
_SOURCE = """(
    SELECT id, xmin::text::bigint AS version, document_id AS document, chunk_number + 1 AS number,
        chunk_metadata AS metadata, embeddings AS bits
    FROM multi_vector_embeddings WHERE embeddings IS NOT NULL
) AS pages"""

# A page that morphik-core has replaced since has another row.
_OURS = """(
    SELECT row, document, number FROM pagevec_pages
    WHERE EXISTS (SELECT FROM multi_vector_embeddings WHERE id = row)
) AS ours"""

# First the newest row of each page; the big columns are read of those rows alone.
_NEWEST = """
WITH newest AS (
    SELECT place, max(id) AS id
    FROM unnest(%s::text[], %s::int[]) WITH ORDINALITY AS wanted (document, number, place)
    JOIN multi_vector_embeddings ON document_id = document AND chunk_number = wanted.number - 1
    WHERE embeddings IS NOT NULL
    GROUP BY place
)"""
_PAGES = """
SELECT place, chunk_metadata, array_send(embeddings), row IS NOT NULL, {content}, signs, format,
    vectors, {thumbnail}, grid, {token_rows}
FROM newest JOIN multi_vector_embeddings USING (id) LEFT JOIN pagevec_pages ON row = id"""
_TO_REVISE = """
SELECT place, id, chunk_metadata, array_send(embeddings), TRUE, content, signs, format,
    vectors, thumbnail, grid, token_rows
FROM newest JOIN multi_vector_embeddings USING (id) JOIN pagevec_pages ON row = id
FOR UPDATE OF multi_vector_embeddings, pagevec_pages"""

# In their places: morphik-core does not take our locks, and deletes rows that it has found.
_REVISE_THEIRS = """
UPDATE multi_vector_embeddings SET embeddings = %s::bit(128)[] WHERE id = %s"""
_REVISE_OURS = """
UPDATE pagevec_pages SET signs = %s, vectors = %s, token_rows = %s WHERE row = %s"""

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
    (row, document, number, signs, format, vectors, thumbnail, grid, token_rows)
FROM STDIN (FORMAT BINARY)"""
_OUR_TYPES = ("int8", "text", "int4", "bytea", "text", "bytea", "bytea", "int4[]", "bytea")


class SharedTables(PageTables):
    """morphik-core's `multi_vector_embeddings`, and `pagevec_pages` for what it has no column for.

    Both programs find what either of them wrote. Pages that morphik-core wrote have sign bits
    alone.
    """

    dim = DIM
    source: LiteralString = _SOURCE
    names: Mapping[LiteralString, LiteralString] = {
        "multi_vector_embeddings": "document_id",
        "pagevec_pages": "document",
        "pagevec_documents": "name",
    }
    ours: LiteralString = _OURS
    words: LiteralString = "pagevec_words"

    def __init__(self, *, has_maps: bool = True) -> None:
        rows: LiteralString = "token_rows" if has_maps else "NULL"
        self._pages = _NEWEST + _PAGES.format(
            content="content", thumbnail="thumbnail", token_rows=rows
        )
        self._vectors = _NEWEST + _PAGES.format(content="''", thumbnail="NULL", token_rows=rows)

    def read_signs(self, bits: bytes) -> PackedBits:
        return decode(bits)

    def read_pages(
        self,
        connection: Connection,
        keys: Sequence[PageKey],
        damaged: DamagedPages,
        *,
        whole: bool = True,
    ) -> list[Page]:
        statement = self._pages if whole else self._vectors
        return select_pages(connection, statement, keys, damaged, _page)

    def write_pages(
        self, connection: Connection, pages: Sequence[Page], form: VectorFormat
    ) -> None:
        names, numbers = [page.key.document for page in pages], [page.key.number for page in pages]
        for statement in (_DELETE_REPLACED, _DELETE_OURS_REPLACED):
            connection.execute(statement, {"names": names, "numbers": numbers})
        connection.execute(_COMPRESS_FAST)
        ids = [row[0] for row in connection.execute(_NEW_IDS, (len(pages),))]
        copy_rows(connection, _COPY_THEIRS, _THEIR_TYPES, map(_their_row, ids, pages))
        copy_rows(connection, _COPY_OURS, _OUR_TYPES, map(partial(_our_row, form), ids, pages))

    def revise_pages(
        self,
        connection: Connection,
        keys: Sequence[PageKey],
        change: Callable[[Page], Page],
        damaged: DamagedPages,
    ) -> int:
        connection.execute(_COMPRESS_FAST)
        found = select_pages(connection, _NEWEST + _TO_REVISE, keys, damaged, _held)
        held = [one for one in found if one is not None]
        changed = [(one, new) for one in held if (new := change(one.page)) is not one.page]
        for one, page in changed:
            signs = quantize(page.vectors, "binary").values
            connection.execute(_REVISE_THEIRS, (literal(signs), one.row))
            ours = digest(signs), _pack(page.vectors, one.form), rows_column(page)
            connection.execute(_REVISE_OURS, (*ours, one.row))
        return len(changed)


def _page(
    key: PageKey, metadata: str | None, bits: bytes, ours: bool, content: str, *columns: Any
) -> Page:
    signs = decode(bits)
    if not ours:
        return Page(key, _vectors_of_signs(signs), parse_metadata(metadata))
    expected, form, packed, thumbnail, grid, token_rows = columns
    # Other bits than ours were when we wrote them: the page was replaced, our vectors are old.
    is_ours = expected == digest(signs)
    has_vectors = is_ours and packed is not None
    vectors = (
        unpack_unit(packed, DIM, form, len(signs)) if has_vectors else _vectors_of_signs(signs)
    )
    place = PatchGrid(*grid) if grid else None
    rows = read_token_rows(token_rows, vectors) if is_ours else None
    return Page(key, vectors, parse_metadata(metadata), content or None, thumbnail, place, rows)


def _held(key: PageKey, row: int, *columns: Any) -> Held | None:
    """Return a page of ours with its row; None if its bits were replaced by others."""
    (_, bits, _, _, expected, form, *_) = columns
    return Held(row, form, _page(key, *columns)) if expected == digest(decode(bits)) else None


def _vectors_of_signs(signs: PackedBits) -> MultiVector:
    return dequantize(Quantized(signs), "binary")


def _their_row(row: int, page: Page) -> tuple[Any, ...]:
    content, metadata = text_columns(page)
    bits = encode(quantize(page.vectors, "binary").values)
    return row, page.key.document, page.key.number - 1, content, metadata, bits


def _our_row(form: VectorFormat, row: int, page: Page) -> tuple[Any, ...]:
    signs = digest(quantize(page.vectors, "binary").values)
    key, vectors = (page.key.document, page.key.number), _pack(page.vectors, form)
    ours = row, *key, signs, form, vectors, page.thumbnail
    return *ours, grid_column(page), rows_column(page)


def _pack(vectors: MultiVector, form: VectorFormat) -> bytes | None:
    # The sign bits are in morphik-core's row already.
    return None if form == "binary" else pack(vectors, form)
