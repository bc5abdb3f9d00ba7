"""Pages are found by the words of their text layers, in each store that keeps words."""

import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from contract import another_process

import vectors
from pagevec.stores import open_store
from pagevec.stores.base import Store, TextMatch
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.stores.words import QueryWords
from pagevec.types import DocumentRecord, Page, PageKey
from vectors import page

TEXTS = {
    ("report", 1): "Passengers of the night route: 1,234 in Müller's year 2024",
    ("report", 2): "The day route and its fares",
    ("report", 3): "The fleet: three ferries, the crew, the night watch",
    ("rules", 1): "The rules of RFC-2119 are binding",
    ("rules", 2): "The fares of the harbour",
    ("scan", 1): None,
    ("scan", 2): " \n ",
}
# Each query, with the pages that have its words, the best first.
FOUND = [
    ("night passengers", [("report", 1), ("report", 3)]),
    ("MULLER", [("report", 1)]),
    ("1234", [("report", 1)]),
    ("rfc2119", [("rules", 1)]),
    ("RFC-2119 fares", [("rules", 1), ("rules", 2), ("report", 2)]),
    ("nowhere to be found", []),
    ("the", []),  # on four of five pages with words
    ('" OR NOT * NEAR( : ^ {x', []),
    ("", []),
]

both_tables = pytest.mark.parametrize("dim", [128, 100], indirect=True)


@pytest.fixture(autouse=True)
def dim(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Components of all vectors of a test: PostgreSQL keeps those of 128 in another table."""
    chosen = int(getattr(request, "param", vectors.DIM))
    monkeypatch.setattr(vectors, "DIM", chosen)
    return chosen


def pages() -> list[Page]:
    return [page(document, number, text=text) for (document, number), text in TEXTS.items()]


def find(store: Store, query: str, limit: int = 10) -> list[tuple[str, int]]:
    """Return the pages that have words of a query, the best first."""
    found = store.find_words(QueryWords(query).terms, limit, [])
    best = sorted(found, key=lambda key: (-found[key].score, key))
    return [(key.document, key.number) for key in best]


@both_tables
def test_words_are_found(store: Store) -> None:
    """Names, numbers and identifiers are found, the page with more and rarer words first."""
    assert find(store, "night") == []
    store.add(pages())
    for query, expected in FOUND:
        assert find(store, query) == expected, query
    assert find(store, "night passengers", limit=1) == [("report", 1)]


@both_tables
def test_what_is_asked_for_is_scored(store: Store) -> None:
    """Pages with a text layer are scored in any case, 0 without the words; scans are not."""
    store.add(pages())
    keys = [PageKey(*one) for one in TEXTS] + [PageKey("gone", 1)]
    found = store.find_words(QueryWords("night the").terms, 0, keys)
    assert found.keys() == {key for key in keys if key.document in ("report", "rules")}
    assert found[PageKey("rules", 1)] == TextMatch()
    assert found[PageKey("report", 1)].terms == {"night"}
    assert found[PageKey("report", 1)].score > 0


@both_tables
def test_words_follow_their_pages(store: Store) -> None:
    """A page that is replaced, renamed or deleted is found by what it has now, and not before."""
    store.add(pages())
    store.add([page("report", 1, text="Nothing of before"), page("rules", 1)])
    assert find(store, "night") == [("report", 3)]
    assert find(store, "rfc2119") == []
    assert find(store, "before") == [("report", 1)]
    store.ledger.write(DocumentRecord("report", "00"))
    store.rename({"report": "annual"})
    assert find(store, "before") == [("annual", 1)]
    store.delete("annual")
    assert find(store, "before") == find(store, "night") == []
    assert find(store, "harbour") == [("rules", 2)]


@both_tables
def test_languages_without_spaces(store: Store) -> None:
    """Words of two characters are found inside sentences of Chinese, Japanese and Thai."""
    texts = [
        "東京タワーの高さは三百三十三メートル",
        "北京的夜班渡輪乘客",
        "การเดินทางกลางคืน",
        "수도는 서울이다",
    ]
    store.add([page("a", number, text=text) for number, text in enumerate(texts, start=1)])
    for query, number in (("高さ", 1), ("渡輪", 2), ("乘客", 2), ("กลางคืน", 3), ("서울", 4)):
        assert find(store, query)[:1] == [("a", number)], query


def test_both_stores_give_one_score(tmp_path: Path, database: str) -> None:
    """PostgreSQL's scores are those of FTS5's bm25 in SQLite."""
    chosen = random.Random(0)  # noqa: S311
    words = [f"w{number}" for number in range(60)]
    some = [
        page("a", number, text=" ".join(chosen.choices(words, k=chosen.randrange(1, 90))))
        for number in range(1, 80)
    ]
    keys = [one.key for one in some]
    with open_store(str(tmp_path / "store")) as sqlite, open_store(database) as postgres:
        sqlite.add(some)
        postgres.add(some)
        for query in ("w1", "w2 w3", "w4 w5 w6 nowhere"):
            ours, theirs = (
                store.find_words(QueryWords(query).terms, 5, keys) for store in (sqlite, postgres)
            )
            assert ours.keys() == theirs.keys() == set(keys)
            assert {key: one.terms for key, one in ours.items()} == {
                key: one.terms for key, one in theirs.items()
            }
            for key, match in ours.items():
                assert theirs[key].score == pytest.approx(match.score), key


HOSTILE = ["a" * 3_000_000, "漢" * 3_000_000, "a\u0301\u0327" * 500_000, "\udcff x\0y " * 9]


@both_tables
@pytest.mark.parametrize("text", HOSTILE[:3], ids=["one word", "one sentence", "marks"])
def test_hostile_texts(store: Store, text: str) -> None:
    """Megabytes of one word cost no more than a long page, and spoil no search."""
    store.add([page("hostile", 1, text=text), *pages()])
    assert find(store, "night")[0] == ("report", 3)
    assert find(store, text[:1000]) == [("hostile", 1)]


BEFORE = """
DROP TABLE words; DROP TABLE lists; DROP TABLE segments; DROP TABLE centroids;
DROP TABLE condensing; DROP TABLE token_rows; DROP TABLE bits_file; DROP TABLE bits_parts;
PRAGMA user_version = 5"""
"""Makes a store one of the version that had no words."""


def test_an_older_store_gets_its_words(tmp_path: Path) -> None:
    """Opening a store of before in SQLite indexes the texts that it has, once."""
    with SqliteStore(tmp_path) as store:
        store.add(pages())
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript(BEFORE)
    for _ in range(2):
        with SqliteStore(tmp_path) as store:
            assert [find(store, query) for query, _ in FOUND] == [found for _, found in FOUND]


def test_an_older_store_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is searched by its vectors alone: no page of it is found by words, and none has any."""
    with SqliteStore(tmp_path) as store:
        store.add(pages())
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript(BEFORE)
    monkeypatch.setattr("pagevec.stores.sqlite.database._is_writable", lambda file: False)
    with SqliteStore(tmp_path) as store:
        assert store.find_words(["night"], 5, [PageKey("report", 1)]) == {}
        assert store.count() == len(TEXTS)


@both_tables
def test_an_older_database_gets_its_words(database: str) -> None:
    """Opening a store of before in PostgreSQL indexes the texts that it has."""
    with open_store(database) as store:
        store.add(pages())
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE pagevec_words, pagevec_whole_words")
    with open_store(database) as store:
        assert [find(store, query) for query, _ in FOUND] == [found for _, found in FOUND]


def test_morphik_cores_changes(database: str) -> None:
    """A page that morphik-core deletes is found no more, and one that it writes has no words."""
    with open_store(database) as store, psycopg.connect(database, autocommit=True) as morphik:
        store.add(pages())
        bits = morphik.execute(
            "DELETE FROM multi_vector_embeddings WHERE document_id = 'report' RETURNING embeddings"
        ).fetchone()
        assert find(store, "night") == []
        morphik.execute(
            "INSERT INTO multi_vector_embeddings (document_id, chunk_number, content, embeddings)"
            " VALUES ('report', 0, 'the night route', %s)",
            bits,
        )
        theirs = PageKey("report", 1)
        assert store.find_words(["night", "harbour"], 5, [theirs]).keys() == {PageKey("rules", 2)}
        assert [one.text for one in store.fetch([theirs])] == [None]


WRITE_FOR_EVER = """
for number in range(1, 100_000):
    store.add([page("endless", number, text=f"page{number} of them")])
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_words_and_pages_alike(store: Store, store_name: str) -> None:
    """After SIGKILL a page is found by its words if, and only if, it is stored."""
    writer = another_process(store_name, WRITE_FOR_EVER)
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    stored = store.has("endless")
    assert len(stored) >= 5
    for number in (*stored, max(stored) + 1):
        expected = [("endless", number)] if number in stored else []
        assert find(store, f"page{number}") == expected
