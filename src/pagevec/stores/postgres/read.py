"""Rows of morphik-core's table, whoever wrote them -> keys, metadata, bits and pages.

Page n of a document is the row with chunk_number n - 1, for morphik-core counts from 0. Nothing
but habit keeps morphik-core from writing a page twice: then the row with the highest id counts.
"""

import ast
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pagevec.grid import PatchGrid
from pagevec.stores.base import Filter
from pagevec.stores.codec import unpack
from pagevec.stores.hamming import PackedBits
from pagevec.stores.postgres.bits import DIM, decode, digest
from pagevec.stores.postgres.connections import Connection
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import Quantized, dequantize

# `xmin`, the transaction that wrote the row: another one after every change.
_ROWS = """
COPY (
    SELECT id, xmin::text::bigint, document_id, chunk_number + 1, chunk_metadata, {bits}
    FROM multi_vector_embeddings WHERE embeddings IS NOT NULL{condition}
) TO STDOUT (FORMAT BINARY)"""
_TYPES = ("int8", "int8", "text", "int4", "text", "bytea")

# Theirs first, to find the newest row of each page; the big columns are read of those alone.
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

NO_SIGNS = np.empty((0, DIM // 8), np.uint8)


@dataclass(frozen=True, eq=False)
class Row:
    """What a search needs of a row. `version` is another one after every change of the row."""

    id: int
    version: int
    key: PageKey
    metadata: dict[str, Any]
    signs: PackedBits

    def without_signs(self) -> "Row":
        """Return the row without its bits, for a `BitIndex` has them already."""
        return replace(self, signs=NO_SIGNS)

    def passes(self, where: Filter) -> bool:
        """Whether a search under `where` looks at this row."""
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
    """Yield the rows with `ids`, or of `documents`, or all rows; on request without their bits."""
    column, values = ("id", list[Any](ids)) if ids else ("document_id", list[Any](documents))
    condition = f" AND {column} = ANY(%s)" if values else ""
    statement = _ROWS.format(bits="embeddings" if bits else "NULL", condition=condition).encode()
    with connection.cursor().copy(statement, (values,) if values else None) as copy:
        copy.set_types(_TYPES)
        for row, version, document, number, metadata, array in copy.rows():
            key = PageKey(document, number)
            yield Row(row, version, key, _parsed(metadata), decode(array) if array else NO_SIGNS)


def read_pages(connection: Connection, keys: Sequence[PageKey]) -> list[Page]:
    """Return the pages of `keys`, in their order; those that are gone are left out."""
    documents, numbers = [key.document for key in keys], [key.number for key in keys]
    rows = connection.execute(_PAGES, (documents, numbers), binary=True).fetchall()
    # Sorted here: the server would carry the vectors through its sort.
    rows.sort(key=lambda row: int(row[0]))
    return [_page(keys[place - 1], *columns) for place, *columns in rows]


def _page(
    key: PageKey, metadata: str | None, bits: bytes, ours: bool, content: str, *columns: Any
) -> Page:
    signs = decode(bits)
    if not ours:
        # Their content may be an image, or the name of a file in morphik-core's storage.
        return Page(key, _of_signs(signs), _parsed(metadata))
    expected, form, packed, thumbnail, grid = columns
    only_signs = packed is None or expected != digest(signs)
    vectors = _of_signs(signs) if only_signs else unpack(packed, DIM, form)
    place = PatchGrid(*grid) if grid else None
    return Page(key, vectors, _parsed(metadata), content or None, thumbnail, place)


def _of_signs(signs: PackedBits) -> MultiVector:
    return dequantize(Quantized(signs), "binary")


def _parsed(metadata: str | None) -> dict[str, Any]:
    """Return the metadata of a row: JSON, or `str` of a dict as older morphik-core wrote it."""
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            parsed = parse(metadata or "{}")
            return parsed if isinstance(parsed, dict) else {}
    return {}
