"""Pages of any other dimension than 128, in a table of pagevec's own.

morphik-core's table has no room for them: its vectors have 128 bits. So nothing is written there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, LiteralString

from pagevec.grid import PatchGrid
from pagevec.stores.base import DamagedPages
from pagevec.stores.codec import VectorFormat, pack, unpack_signs, unpack_unit
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

_SOURCE = """(
    SELECT id, xmin::text::bigint AS version, document, number, metadata, signs AS bits
    FROM pagevec_whole_pages
) AS pages"""

_PAGES = """
SELECT place, dim, metadata, signs, {text}, format, vectors, {thumbnail}, grid, {token_rows}
FROM unnest(%s::text[], %s::int[]) WITH ORDINALITY AS wanted (document, number, place)
JOIN pagevec_whole_pages USING (document, number)"""

_TO_REVISE = """
SELECT place, id, dim, metadata, signs, text, format, vectors, thumbnail, grid, token_rows
FROM unnest(%s::text[], %s::int[]) WITH ORDINALITY AS wanted (document, number, place)
JOIN pagevec_whole_pages USING (document, number)
FOR UPDATE OF pagevec_whole_pages"""

_REVISE = "UPDATE pagevec_whole_pages SET signs = %s, vectors = %s, token_rows = %s WHERE id = %s"

_DELETE_REPLACED = """
DELETE FROM pagevec_whole_pages AS present
USING unnest(%s::text[], %s::int[]) AS replaced (document, number)
WHERE present.document = replaced.document AND present.number = replaced.number"""

_COPY = """
COPY pagevec_whole_pages
    (document, number, dim, text, metadata, signs, format, vectors, thumbnail, grid, token_rows)
FROM STDIN (FORMAT BINARY)"""
_TYPES = (
    *("text", "int4", "int4", "text", "text", "bytea", "text", "bytea", "bytea", "int4[]"),
    "bytea",
)


class OwnTables(PageTables):
    """`pagevec_whole_pages`, which holds all that is stored of a page of `dim` dimensions."""

    source: LiteralString = _SOURCE
    names: Mapping[LiteralString, LiteralString] = {
        "pagevec_whole_pages": "document",
        "pagevec_documents": "name",
    }
    ours: LiteralString = "(SELECT id AS row, document, number FROM pagevec_whole_pages) AS ours"
    words: LiteralString = "pagevec_whole_words"

    def __init__(self, dim: int, *, has_maps: bool = True) -> None:
        self.dim = dim
        rows: LiteralString = "token_rows" if has_maps else "NULL"
        self._pages = _PAGES.format(text="text", thumbnail="thumbnail", token_rows=rows)
        self._vectors = _PAGES.format(text="''", thumbnail="NULL", token_rows=rows)

    def read_signs(self, bits: bytes) -> PackedBits:
        return unpack_signs(bits, self.dim)

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
        connection.execute(_DELETE_REPLACED, (names, numbers))
        copy_rows(connection, _COPY, _TYPES, map(partial(_row, form), pages))

    def revise_pages(
        self,
        connection: Connection,
        keys: Sequence[PageKey],
        change: Callable[[Page], Page],
        damaged: DamagedPages,
    ) -> int:
        held = select_pages(connection, _TO_REVISE, keys, damaged, _held)
        changed = [(one, new) for one in held if (new := change(one.page)) is not one.page]
        for one, page in changed:
            signs, vectors = _pack(page.vectors, one.form)
            connection.execute(_REVISE, (signs, vectors, rows_column(page), one.row))
        return len(changed)


def _page(key: PageKey, dim: int, metadata: str, signs: bytes, text: str, *columns: Any) -> Page:
    form, packed, thumbnail, grid, token_rows = columns
    count = len(unpack_signs(signs, dim))
    vectors = unpack_unit(signs if packed is None else packed, dim, form, count)
    place = PatchGrid(*grid) if grid else None
    rows = read_token_rows(token_rows, vectors)
    return Page(key, vectors, parse_metadata(metadata), text or None, thumbnail, place, rows)


def _held(key: PageKey, row: int, *columns: Any) -> Held:
    form: VectorFormat = columns[4]
    return Held(row, form, _page(key, *columns))


def _row(form: VectorFormat, page: Page) -> tuple[Any, ...]:
    key, dim = (page.key.document, page.key.number), page.vectors.shape[1]
    signs, vectors = _pack(page.vectors, form)
    row = (*key, dim, *text_columns(page), signs, form, vectors, page.thumbnail)
    return *row, grid_column(page), rows_column(page)


def _pack(vectors: MultiVector, form: VectorFormat) -> tuple[bytes, bytes | None]:
    """Return the sign bits and the vectors; None for vectors that are kept as bits only."""
    return pack(vectors, "binary"), None if form == "binary" else pack(vectors, form)
