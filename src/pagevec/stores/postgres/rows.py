"""Pages as rows, whichever tables they are in: what a search needs of them, and their names.

Pages of 128 dimensions are in morphik-core's table (`shared`), all others in one of pagevec's own
(`own`). A store has pages of one dimension, so all of its pages are in the same tables.
"""

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, LiteralString, Protocol, TypeVar

import numpy as np

from pagevec.stores.base import DamagedPages, Filter, check_rename
from pagevec.stores.codec import VectorFormat
from pagevec.stores.condense import pack_rows, unpack_rows
from pagevec.stores.postgres.connections import Connection
from pagevec.stores.probe import PackedBits
from pagevec.types import MultiVector, Page, PageKey, TokenRows

_ROWS = """
COPY (
    SELECT id, version, document, number, metadata, {bits} FROM {source}{condition}
) TO STDOUT (FORMAT BINARY)"""
_ROW_TYPES = ("int8", "int8", "text", "int4", "text", "bytea")

# The hash of a name as the key of a lock: two names with one hash merely wait for each other.
# Sorted, because two writers of the same documents could otherwise deadlock.
_LOCK = """
SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock(lock) FROM (
    SELECT DISTINCT hashtextextended(name, 0) AS lock FROM unnest(%s::text[]) AS name ORDER BY lock
) AS locks"""

# One lock keeps all writers away: the server's memory holds some thousands of locks only.
_LOCK_ALL = "SELECT pg_advisory_xact_lock(%s)"
_ALL = 0x70616765766564  # any number, but not that of another lock

_KNOWN = "SELECT name FROM pagevec_documents WHERE name = ANY(%(names)s)"
_TAKEN = """
SELECT name FROM pagevec_documents WHERE name = ANY(%(names)s)
UNION SELECT document FROM {source} WHERE document = ANY(%(names)s)"""
_RENAME = """
UPDATE {table} SET {column} = renamed.new
FROM unnest(%s::text[], %s::text[]) AS renamed (old, new) WHERE {column} = renamed.old"""

Made = TypeVar("Made")

_NO_SIGNS = np.empty((0, 0), np.uint8)


class PageTables(Protocol):
    """The tables of pages with vectors of one dimension.

    Attributes:
        dim: components of each vector.
        source: what rows are selected from, one for each page or more, of which the one with the
            highest id counts. Its columns are `id`; `version`, which changes with the row;
            `document` and `number`; `metadata`, in JSON; and `bits`, the sign bits.
        names: the tables that hold a document, and their columns with its name.
        ours: what the pages are selected from that pagevec wrote, and that are still there: `row`,
            `document` and `number`.
        words: the table with their words, by `row`.
    """

    dim: int
    source: LiteralString
    names: Mapping[LiteralString, LiteralString]
    ours: LiteralString
    words: LiteralString

    def read_signs(self, bits: bytes) -> PackedBits:
        """Return the sign bits in a row's column `bits`.

        Raises:
            ValueError: there are others in it.
        """

    def read_pages(
        self,
        connection: Connection,
        keys: Sequence[PageKey],
        damaged: DamagedPages,
        *,
        whole: bool = True,
    ) -> list[Page]:
        """Return the pages of `keys`, in their order, without those that are gone.

        Pages that cannot be read are left out, too, and noted in `damaged`. Unless they are asked
        for `whole`, they have neither text nor thumbnail.
        """

    def write_pages(
        self, connection: Connection, pages: Sequence[Page], form: VectorFormat
    ) -> None:
        """Write `pages`, replacing those with the same keys.

        Args:
            connection: a connection in a transaction that has locked the documents.
            pages: with unit vectors of shape (vectors, dim); no key twice.
            form: how to keep the vectors.
        """

    def revise_pages(
        self,
        connection: Connection,
        keys: Sequence[PageKey],
        change: Callable[[Page], Page],
        damaged: DamagedPages,
    ) -> int:
        """Change the vectors of pages that pagevec wrote, in their rows, as `Store.revise` says.

        Args:
            connection: a connection in a transaction that has locked the documents.
            keys: of the pages.
            change: returns a page with other vectors, or the same one.
            damaged: takes the pages that cannot be read.
        """


@dataclass(frozen=True, eq=False)
class Row:
    """What a search needs of a row.

    Attributes:
        id: of the row in its table.
        version: changes with every change of the row.
        key: of the page.
        metadata: of the page.
        signs: sign bits of the page.
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
        return replace(self, signs=_NO_SIGNS)

    def passes(self, where: Filter) -> bool:
        """Whether a search under `where` considers this row."""
        if where.documents and self.key.document not in where.documents:
            return False
        # In JSON, 1 is neither true nor 1.0; in Python they are equal.
        own = ((self.metadata.get(key, ...), value) for key, value in where.metadata.items())
        return all(type(has) is type(value) and has == value for has, value in own)


def read_rows(
    connection: Connection,
    tables: PageTables,
    *,
    ids: Sequence[int] = (),
    documents: Sequence[str] = (),
    bits: bool = True,
) -> Iterator[Row]:
    """Yield the rows with `ids`, or of `documents`, or all rows; with or without their bits."""
    column, values = ("id", list[Any](ids)) if ids else ("document", list[Any](documents))
    condition = f" WHERE {column} = ANY(%s)" if values else ""
    statement = _ROWS.format(
        bits="bits" if bits else "NULL", source=tables.source, condition=condition
    )
    with connection.cursor().copy(statement.encode(), (values,) if values else None) as copy:
        copy.set_types(_ROW_TYPES)
        for row, version, document, number, metadata, packed in copy.rows():
            key = PageKey(document, number)
            signs, fault = _try_to_read(tables, packed)
            yield Row(row, version, key, parse_metadata(metadata), signs, fault)


def lock_documents(connection: Connection, documents: Iterable[str]) -> None:
    """Keep other writers of pagevec from these documents until the transaction ends."""
    connection.execute(_LOCK, (_ALL, list(documents)))


def lock_store(connection: Connection) -> None:
    """Keep other writers of pagevec from all documents until the transaction ends."""
    connection.execute(_LOCK_ALL, (_ALL,))


def rename_documents(connection: Connection, tables: PageTables, names: Mapping[str, str]) -> None:
    """Rename documents of pagevec's ledger, with all their rows.

    Args:
        connection: a connection in a transaction that has locked the store.
        tables: where the pages are.
        names: the new name for each old name.

    Raises:
        StoreError: an old name is not in the ledger, or a new name is taken.
    """
    old, new = list(names), list(names.values())
    known, taken = (
        {name for (name,) in connection.execute(statement, {"names": listed})}
        for statement, listed in ((_KNOWN, old), (_TAKEN.format(source=tables.source), new))
    )
    check_rename(names, known, taken)
    # Left over from documents that morphik-core deleted.
    connection.execute("DELETE FROM pagevec_pages WHERE document = ANY(%s)", (new,))
    for table, column in tables.names.items():
        connection.execute(_RENAME.format(table=table, column=column), (old, new))


def select_pages(
    connection: Connection,
    statement: LiteralString,
    keys: Sequence[PageKey],
    damaged: DamagedPages,
    make: Callable[..., Made],
) -> list[Made]:
    """Return the pages of `keys`, in their order, without those that are gone or damaged.

    Args:
        connection: a connection.
        statement: selects the place of a page among `keys`, from 1, and what else `make` takes; it
            is given their documents and their numbers.
        keys: of the pages.
        damaged: takes the pages that cannot be read.
        make: returns a page, or what is wanted of it, from its key and the columns of its row; or
            raises ValueError.
    """
    documents, numbers = [key.document for key in keys], [key.number for key in keys]
    rows = connection.execute(statement, (documents, numbers), binary=True).fetchall()
    pages = []
    # Sorted here, because the server would carry the vectors through its sort.
    for place, *columns in sorted(rows, key=lambda row: int(row[0])):
        key = keys[place - 1]
        with damaged.noting(key):
            pages.append(make(key, *columns))
    return pages


def parse_metadata(metadata: str | None) -> dict[str, Any]:
    """Return a row's metadata, from JSON or from `str(dict)` as older morphik-core wrote it."""
    for parse in (json.loads, _evaluate):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            parsed = parse(metadata or "{}")
            return parsed if isinstance(parsed, dict) else {}
    return {}


_ATTEMPTS = 20
_evaluation = Lock()


def _evaluate(literal: str) -> Any:
    # CPython before 3.14 counts the recursion of all threads together here, and fails where two of
    # them meet: https://github.com/python/cpython/issues/106905. The lock keeps ours apart.
    with _evaluation:
        for _ in range(_ATTEMPTS):
            with suppress(SystemError):
                return ast.literal_eval(literal)
        return ast.literal_eval(literal)


def text_columns(page: Page) -> tuple[str, str]:
    """Return the text and the metadata of a page as PostgreSQL can store them."""
    # PDFs' text layers may have NUL and lone surrogates.
    text = (page.text or "").replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return text, json.dumps(dict(page.metadata), allow_nan=False)


def grid_column(page: Page) -> list[int] | None:
    """Return a page's patch grid as an array."""
    return [page.grid.rows, page.grid.columns, page.grid.first] if page.grid else None


@dataclass(frozen=True, eq=False)
class Held:
    """A page in a row that is locked.

    Attributes:
        row: id of the row.
        form: how its vectors are kept.
        page: as it is stored.
    """

    row: int
    form: VectorFormat
    page: Page


def rows_column(page: Page) -> bytes | None:
    """Return the map of a page's tokens as a value."""
    return None if page.token_rows is None else pack_rows(page.token_rows)


def read_token_rows(packed: bytes | None, vectors: MultiVector) -> TokenRows | None:
    """Return the map that `rows_column` has given.

    Raises:
        ValueError: it is no map to these vectors.
    """
    return None if packed is None else unpack_rows(packed, len(vectors))


def copy_rows(
    connection: Connection,
    statement: LiteralString,
    types: Sequence[str],
    rows: Iterable[tuple[Any, ...]],
) -> None:
    """Execute `COPY ... FROM STDIN (FORMAT BINARY)` with rows of these types."""
    with connection.cursor().copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def _try_to_read(tables: PageTables, bits: bytes | None) -> tuple[PackedBits, ValueError | None]:
    """Return the sign bits of a row, none where they cannot be read; and why that is so."""
    try:
        return tables.read_signs(bits) if bits else _NO_SIGNS, None
    except ValueError as error:
        return _NO_SIGNS, error
