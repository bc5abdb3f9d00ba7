"""Pages -> rows of morphik-core's table and of ours beside it, by binary COPY."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from pagevec.errors import StoreError
from pagevec.stores.codec import Format, pack
from pagevec.stores.postgres.bits import DIM, digest, encode
from pagevec.stores.postgres.connections import Connection
from pagevec.types import MultiVector, Page

# The hash of a name as the name of a lock: two names with one lock only wait for each other. Always
# in one order, or two writers of the same documents could wait for each other for ever.
_LOCK = """
SELECT pg_advisory_xact_lock(lock) FROM (
    SELECT DISTINCT hashtextextended(name, 0) AS lock FROM unnest(%s::text[]) AS name ORDER BY lock
) AS locks"""

# Their index knows documents only: each document's rows are gone through once, not for each page.
_REPLACED = """
WITH present AS MATERIALIZED (
    SELECT id, document_id, chunk_number FROM multi_vector_embeddings
    WHERE document_id = ANY(%(names)s)
)
DELETE FROM multi_vector_embeddings WHERE id IN (
    SELECT id FROM present JOIN unnest(%(names)s::text[], %(numbers)s::int[])
        AS replaced (document, number) ON document_id = document AND chunk_number = number - 1
)"""

_OURS_REPLACED = """
DELETE FROM pagevec_pages AS ours
USING unnest(%(names)s::text[], %(numbers)s::int[]) AS replaced (document, number)
WHERE ours.document = replaced.document AND ours.number = replaced.number"""

# PostgreSQL tries to compress each page's bits, which takes four times as long as all else by its
# default and next to nothing by lz4. How a value is compressed is its own, not its column's.
_COMPRESS_FAST = """
SELECT set_config(name, 'lz4', true) FROM pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)"""

_IDS = """
SELECT nextval(pg_get_serial_sequence('multi_vector_embeddings', 'id'))
FROM generate_series(1, %s)"""

_THEIRS = """
COPY multi_vector_embeddings
    (id, document_id, chunk_number, content, chunk_metadata, embeddings)
FROM STDIN (FORMAT BINARY)"""
_THEIR_TYPES = ("int8", "text", "int4", "text", "text", "bytea")

_OURS = """
COPY pagevec_pages
    (row, document, number, signs, format, vectors, thumbnail, grid)
FROM STDIN (FORMAT BINARY)"""
_OUR_TYPES = ("int8", "text", "int4", "bytea", "text", "bytea", "bytea", "int4[]")


def lock_documents(connection: Connection, documents: Iterable[str]) -> None:
    """Wait until no other writer of pagevec has these documents, and keep them to the end."""
    connection.execute(_LOCK, (list(documents),))


def write_pages(connection: Connection, pages: Sequence[Page], form: Format) -> None:
    """Write `pages`, no key twice, in place of those with the same keys.

    Raises:
        StoreError: the vectors do not have the 128 dimensions of the column's type.
    """
    for page in pages:
        check_dimension(page.vectors)
    names, numbers = [page.key.document for page in pages], [page.key.number for page in pages]
    lock_documents(connection, names)
    for statement in (_REPLACED, _OURS_REPLACED):
        connection.execute(statement, {"names": names, "numbers": numbers})
    connection.execute(_COMPRESS_FAST)
    ids = [row[0] for row in connection.execute(_IDS, (len(pages),))]
    _copy(connection, _THEIRS, _THEIR_TYPES, map(_their_row, ids, pages))
    _copy(connection, _OURS, _OUR_TYPES, map(partial(_our_row, form), ids, pages))


def check_dimension(vectors: MultiVector) -> None:
    """Raise StoreError where `vectors` do not fit the type of the column."""
    if vectors.shape[1] != DIM:
        raise StoreError(
            f"a store in PostgreSQL holds vectors of {DIM} dimensions, "
            f"these have {vectors.shape[1]}: take another model or another store"
        )


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


def _our_row(form: Format, row: int, page: Page) -> tuple[Any, ...]:
    signs = digest(np.packbits(page.vectors > 0, axis=-1))
    # Signs are in their row already.
    vectors = None if form == "binary" else pack(page.vectors, form)
    grid = page.grid and [page.grid.rows, page.grid.columns, page.grid.first]
    key = (page.key.document, page.key.number)
    return row, *key, signs, form, vectors, page.thumbnail, grid


def _storable(text: str) -> str:
    """Return `text` without what PostgreSQL's TEXT cannot hold, as text layers of PDFs have it."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
