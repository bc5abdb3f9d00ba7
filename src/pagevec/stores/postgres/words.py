"""The words of pages that pagevec stored, in tables beside theirs, with an index (GIN) of terms.

A row has the different terms of a page, and how often each is there. An array takes terms as they
are: no term has to be quoted, none is too long, and their counts give the same BM25 as in SQLite,
where `tsvector` has `ts_rank`, which knows nothing of how rare a word is. A row goes with that of
its page, whoever deletes it. Pages that morphik-core wrote have no row here, and are found by their
vectors: its `content` may be a picture.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, LiteralString

from pagevec.stores.base import TextMatch
from pagevec.stores.bm25 import MOST_FOUND, score, telling
from pagevec.stores.postgres.connections import Connection
from pagevec.stores.postgres.rows import PageTables, copy_rows
from pagevec.stores.words import page_terms
from pagevec.types import Page, PageKey

# The key's index has the lengths, too: how long all pages are is asked by each search.
_CREATE = """
CREATE TABLE {words} (
    row BIGINT NOT NULL REFERENCES {table} ({id}) ON DELETE CASCADE,
    length INTEGER NOT NULL,
    terms TEXT[] COLLATE "C" NOT NULL,
    counts SMALLINT[] NOT NULL,
    PRIMARY KEY (row) INCLUDE (length)
);
CREATE INDEX {words}_terms ON {words} USING GIN (terms)"""

_ARE_READABLE = """
SELECT count(*) = 2 AND bool_and(has_table_privilege(oid, 'SELECT')) FROM pg_class
WHERE oid IN (to_regclass('pagevec_words'), to_regclass('pagevec_whole_words'))"""

# What stores of before have; the second one's texts are in morphik-core's table.
_TEXTS_OF_BEFORE: Mapping[LiteralString, LiteralString] = {
    "pagevec_whole_words": "SELECT id, text FROM pagevec_whole_pages WHERE text <> ''",
    "pagevec_words": """
        SELECT row, content FROM pagevec_pages JOIN multi_vector_embeddings ON id = row
        WHERE content <> ''""",
}

_COPY = "COPY {words} (row, length, terms, counts) FROM STDIN (FORMAT BINARY)"
_TYPES = ("int8", "int4", "text[]", "int2[]")
_ROWS_AT_ONCE = 200
_MOST_COUNTED = 2**15 - 1

_IDS = """
SELECT document, number, row FROM {ours} JOIN unnest(%s::text[], %s::int[])
    AS written (document, number) USING (document, number)"""

_LENGTHS = "SELECT count(*), coalesce(avg(length), 1)::float8 FROM {words}"
_COUNTS = """
SELECT term, (
    SELECT count(*) FROM (SELECT FROM {words} WHERE terms @> ARRAY[term] LIMIT %s) AS found
) FROM unnest(%s::text[]) AS term"""
_FOUND = """
SELECT row, length, counts[array_position(terms, %(term)s)] FROM {words}
WHERE terms @> ARRAY[%(term)s::text]"""
_KEYS = """
SELECT row, document, number FROM {ours} JOIN {words} USING (row) WHERE row = ANY(%s)
UNION
SELECT row, document, number FROM {ours} JOIN {words} USING (row)
JOIN unnest(%s::text[], %s::int[]) AS wanted (document, number) USING (document, number)"""


def are_readable(connection: Connection) -> bool:
    """Whether the tables are there, and this role may read them."""
    return connection.execute(_ARE_READABLE).fetchone() == (True,)


def create_tables(connection: Connection) -> None:
    """Create the tables if they are missing, and index the texts that are stored already."""
    if connection.execute("SELECT to_regclass('pagevec_words') IS NOT NULL").fetchone() == (True,):
        return
    for words, table, id in (
        ("pagevec_words", "pagevec_pages", "row"),
        ("pagevec_whole_words", "pagevec_whole_pages", "id"),
    ):
        connection.execute(_CREATE.format(words=words, table=table, id=id).encode())
    for words, texts in _TEXTS_OF_BEFORE.items():
        with connection.cursor(name="texts") as cursor:
            cursor.execute(texts)
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                _copy(connection, words, rows)


def write_words(connection: Connection, tables: PageTables, pages: Sequence[Page]) -> None:
    """Write the words of pages that were just written, in the same transaction."""
    texts = {page.key: page.text for page in pages}
    names, numbers = [key.document for key in texts], [key.number for key in texts]
    rows = connection.execute(_IDS.format(ours=tables.ours), (names, numbers)).fetchall()
    _copy(
        connection,
        tables.words,
        [(row, texts[PageKey(document, number)]) for document, number, row in rows],
    )


def find_words(
    connection: Connection,
    tables: PageTables,
    terms: Sequence[str],
    limit: int,
    keys: Sequence[PageKey],
) -> dict[PageKey, TextMatch]:
    """Return what `Store.find_words` does.

    Args:
        connection: a connection in a transaction.
        tables: of the pages.
        terms: of the query.
        limit: how many pages to return at most beside `keys`.
        keys: pages to score in any case.
    """
    words = tables.words
    [(pages, mean)] = connection.execute(_LENGTHS.format(words=words))
    listed = connection.execute(_COUNTS.format(words=words), (MOST_FOUND + 1, list(terms)))
    counts: dict[str, int] = dict(listed.fetchall())
    found = defaultdict[int, dict[str, float]](dict)
    for term in telling(counts, pages):
        for row, length, count in connection.execute(_FOUND.format(words=words), {"term": term}):
            found[row][term] = score(count, length, mean, counts[term], pages)
    scores = {row: sum(parts.values()) for row, parts in found.items()}
    best = heapq.nsmallest(limit, scores, key=lambda row: (-scores[row], row))
    statement = _KEYS.format(ours=tables.ours, words=words)
    wanted = [key.document for key in keys], [key.number for key in keys]
    return {
        PageKey(document, number): TextMatch(scores.get(row, 0.0), frozenset(found.get(row, ())))
        for row, document, number in connection.execute(statement, (best, *wanted))
    }


def _copy(
    connection: Connection, words: LiteralString, texts: Iterable[tuple[int, str | None]]
) -> None:
    copied = chain.from_iterable(_rows(row, page_terms(text)) for row, text in texts)
    copy_rows(connection, _COPY.format(words=words), _TYPES, copied)


def _rows(row: int, terms: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the row of a page that has words."""
    if terms:
        counts = Counter(terms)
        yield row, len(terms), list(counts), [min(one, _MOST_COUNTED) for one in counts.values()]
