"""Pages of any other dimension than 128, in a table of pagevec's own.

morphik-core's table has no room for them: its vectors have 128 bits. So nothing is written there.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, LiteralString

from pagevec.grid import PatchGrid
from pagevec.stores.base import DamagedPages
from pagevec.stores.codec import VectorFormat, pack, unpack_signs, unpack_unit
from pagevec.stores.hamming import PackedBits
from pagevec.stores.postgres.connections import Connection
from pagevec.stores.postgres.rows import (
    PageTables,
    copy_rows,
    grid_column,
    parse_metadata,
    select_pages,
    text_columns,
)
from pagevec.types import Page, PageKey

_SOURCE = """(
    SELECT id, xmin::text::bigint AS version, document, number, metadata, signs AS bits
    FROM pagevec_whole_pages
) AS pages"""

_PAGES = """
SELECT place, dim, metadata, signs, text, format, vectors, thumbnail, grid
FROM unnest(%s::text[], %s::int[]) WITH ORDINALITY AS wanted (document, number, place)
JOIN pagevec_whole_pages USING (document, number)"""

_DELETE_REPLACED = """
DELETE FROM pagevec_whole_pages AS present
USING unnest(%s::text[], %s::int[]) AS replaced (document, number)
WHERE present.document = replaced.document AND present.number = replaced.number"""

_COPY = """
COPY pagevec_whole_pages
    (document, number, dim, text, metadata, signs, format, vectors, thumbnail, grid)
FROM STDIN (FORMAT BINARY)"""
_TYPES = ("text", "int4", "int4", "text", "text", "bytea", "text", "bytea", "bytea", "int4[]")


class OwnTables(PageTables):
    """`pagevec_whole_pages`, which holds all that is stored of a page of `dim` dimensions."""

    source: LiteralString = _SOURCE
    names: Mapping[LiteralString, LiteralString] = {
        "pagevec_whole_pages": "document",
        "pagevec_documents": "name",
    }
    ours: LiteralString = "(SELECT id AS row, document, number FROM pagevec_whole_pages) AS ours"
    words: LiteralString = "pagevec_whole_words"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def read_signs(self, bits: bytes) -> PackedBits:
        return unpack_signs(bits, self.dim)

    def read_pages(
        self, connection: Connection, keys: Sequence[PageKey], damaged: DamagedPages
    ) -> list[Page]:
        return select_pages(connection, _PAGES, keys, damaged, _page)

    def write_pages(
        self, connection: Connection, pages: Sequence[Page], form: VectorFormat
    ) -> None:
        names, numbers = [page.key.document for page in pages], [page.key.number for page in pages]
        connection.execute(_DELETE_REPLACED, (names, numbers))
        copy_rows(connection, _COPY, _TYPES, map(partial(_row, form), pages))


def _page(key: PageKey, dim: int, metadata: str, signs: bytes, text: str, *columns: Any) -> Page:
    form, packed, thumbnail, grid = columns
    count = len(unpack_signs(signs, dim))
    vectors = unpack_unit(signs if packed is None else packed, dim, form, count)
    place = PatchGrid(*grid) if grid else None
    return Page(key, vectors, parse_metadata(metadata), text or None, thumbnail, place)


def _row(form: VectorFormat, page: Page) -> tuple[Any, ...]:
    key, dim = (page.key.document, page.key.number), page.vectors.shape[1]
    signs = pack(page.vectors, "binary")
    vectors = None if form == "binary" else pack(page.vectors, form)
    row = (*key, dim, *text_columns(page), signs, form, vectors, page.thumbnail)
    return *row, grid_column(page)
