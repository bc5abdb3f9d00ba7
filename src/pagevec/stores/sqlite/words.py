"""The words of pages in a store's SQLite file: an index of FTS5, whose rows have the pages' ids.

The table keeps the terms beside their index, some 3 kB of a full page of text: FTS5 can forget a
page only if it knows exactly which terms it had, and another version of Python, whose Unicode is
newer, may make others of the same text.
"""

import heapq
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pagevec.stores.base import TextMatch
from pagevec.stores.bm25 import MOST_FOUND, telling
from pagevec.stores.words import page_terms
from pagevec.types import PageKey

# Terms have letters, digits and points alone; this tokenizer takes all that is not ASCII for a
# letter. An older store's texts are indexed row by row; LIMIT makes SQLite ask for terms once.
CREATE = """
CREATE VIRTUAL TABLE words USING fts5(terms, tokenize = "ascii tokenchars '.'");
INSERT INTO words (rowid, terms) SELECT page, terms FROM (
    SELECT page, page_terms(CAST(text AS BLOB)) AS terms FROM contents WHERE text <> '' LIMIT -1
) WHERE terms <> ''"""

# The table of their lengths is the smallest that has a row for each page with words.
_PAGES = "SELECT count(*) FROM words_docsize"
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
_SCORES = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?"
_KEYS = """
SELECT pages.id, document, number FROM json_each(?) AS best JOIN pages ON pages.id = best.value"""
_WITH_WORDS = """
SELECT pages.id, document, number FROM json_each(?) AS wanted
JOIN pages ON document = json_extract(wanted.value, '$[0]')
    AND number = json_extract(wanted.value, '$[1]')
JOIN words_docsize ON words_docsize.id = pages.id"""


def add_functions(connection: sqlite3.Connection) -> None:
    """Let `connection` execute what `CREATE` says."""
    connection.create_function("page_terms", 1, _terms_of_bytes, deterministic=True)


def as_row(text: str | None) -> str:
    """Return the terms of a page's text as they are stored; empty if it has none."""
    return " ".join(page_terms(text))


def index(connection: sqlite3.Connection, page: int, terms: str) -> None:
    """Store the terms of a page, in place of those that it had."""
    connection.execute("DELETE FROM words WHERE rowid = ?", [page])
    if terms:
        connection.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (page, terms))


def forget(connection: sqlite3.Connection, document: str) -> None:
    """Forget the terms of all pages of a document, which are still there."""
    pages = "SELECT id FROM pages WHERE document = ?"
    connection.execute(f"DELETE FROM words WHERE rowid IN ({pages})", [document])  # noqa: S608


def find(
    connection: sqlite3.Connection, terms: Sequence[str], limit: int, keys: Iterable[PageKey]
) -> dict[PageKey, TextMatch]:
    """Return what `Store.find_words` does, as of the connection's transaction."""
    [(pages,)] = connection.execute(_PAGES)
    counts = {term: _count(connection, term) for term in terms}
    found = defaultdict[int, dict[str, float]](dict)
    for term in telling(counts, pages):
        for page, score in connection.execute(_SCORES, [_quote(term)]):
            found[page][term] = score
    scores = {page: sum(parts.values()) for page, parts in found.items()}
    best = heapq.nsmallest(limit, scores, key=lambda page: (-scores[page], page))
    wanted = [(key.document, key.number) for key in keys]
    rows = [
        *connection.execute(_KEYS, [json.dumps(best)]),
        *connection.execute(_WITH_WORDS, [json.dumps(wanted)]),
    ]
    return {
        PageKey(document, number): TextMatch(scores.get(page, 0.0), frozenset(found.get(page, ())))
        for page, document, number in rows
    }


def _count(connection: sqlite3.Connection, term: str) -> int:
    [(count,)] = connection.execute(_COUNT, (_quote(term), MOST_FOUND + 1))
    return int(count)


def _quote(term: str) -> str:
    """Return a term as FTS5 takes it for nothing but a word."""
    return f'"{term}"'


def _terms_of_bytes(text: bytes) -> str:
    return as_row(text.decode(errors="replace"))
