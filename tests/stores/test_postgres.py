"""The store in PostgreSQL beside morphik-core, whose part a plain connection plays."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import psycopg
import pytest
from morphik_core import Connection, describe, insert, literal

from load import collecting_garbage, loaded
from pagevec.errors import OtherModel
from pagevec.grid import PatchGrid
from pagevec.stores import hamming
from pagevec.stores.base import EVERYTHING, Filter
from pagevec.stores.postgres import cache as postgres_cache
from pagevec.stores.postgres.rows import parse_metadata
from pagevec.stores.postgres.store import PostgresStore
from pagevec.types import MultiVector, Page, PageKey
from postgres_server import drop_database, new_database, running_postgres
from vectors import page, unit_vectors


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["plain", "pgvector"])
def url(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    url = new_database(server, pgvector=request.param == "pgvector")
    yield url
    drop_database(url)


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with PostgresStore(url) as store:
        yield store


@pytest.fixture
def morphik(url: str, store: PostgresStore) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few pages are searched by their sign bits."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)


def signs(vectors: MultiVector) -> MultiVector:
    return np.where(vectors > 0, 1, -1).astype(np.float32) / np.sqrt(np.float32(128))


def their_search(connection: Connection, query: MultiVector) -> list[tuple[str, int, float]]:
    return connection.execute(
        "SELECT document_id, chunk_number + 1, max_sim(embeddings, %s::bit(128)[]) AS similarity"
        " FROM multi_vector_embeddings ORDER BY similarity DESC, id",
        (literal(query),),
    ).fetchall()  # type: ignore[return-value]


def test_rows_of_morphik_are_seen_at_the_next_search(
    scanning: None, store: PostgresStore, morphik: Connection
) -> None:
    """A row that morphik-core adds, changes or deletes counts in the very next search."""
    store.add([page("ours", number) for number in range(1, 6)])
    query = unit_vectors(4, 77)
    key = PageKey("theirs", 1)
    assert key not in store.candidates(query, 1)
    insert(morphik, "theirs", 0, query)
    assert store.candidates(query, 1) == [key]
    morphik.execute(
        "UPDATE multi_vector_embeddings SET embeddings = %s WHERE document_id = 'theirs'",
        (literal(-query),),
    )
    assert key not in store.candidates(query, 1)
    assert store.candidates(-query, 1) == [key]
    morphik.execute("DELETE FROM multi_vector_embeddings WHERE document_id = 'theirs'")
    assert key not in store.candidates(-query, 100)
    assert store.fetch([key]) == [] and store.has("theirs") == frozenset()


def test_a_changed_row_alone_is_read_again(
    scanning: None, store: PostgresStore, morphik: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search reads the rows that changed since the last one, and no others."""
    store.add([page("ours", number) for number in range(1, 6)])
    query = unit_vectors(4, 77)
    store.candidates(query, 1)
    read: list[list[int]] = []
    original = postgres_cache.read_rows

    def watched(connection: Any, tables: Any, *, ids: list[int]) -> Any:
        read.append(ids)
        return original(connection, tables, ids=ids)

    monkeypatch.setattr(postgres_cache, "read_rows", watched)
    store.candidates(query, 1)
    assert read == []
    insert(morphik, "theirs", 0, query)
    store.candidates(query, 1)
    store.candidates(query, 1)
    assert [len(ids) for ids in read] == [1]


def test_a_search_fetches_no_contents(store: PostgresStore, morphik: Connection) -> None:
    """Neither our texts and thumbnails nor morphik-core's images are read to score pages."""
    ours = page("ours", 1, text="words", thumbnail=b"\xff\xd8")
    store.add([ours])
    morphik.execute("UPDATE multi_vector_embeddings SET content = repeat('x', 1000000)")
    [bare], [whole] = store.fetch_vectors([ours.key]), store.fetch([ours.key])
    assert (bare.text, bare.thumbnail) == (None, None)
    assert whole.text is not None and len(whole.text) == 1_000_000
    np.testing.assert_array_equal(bare.vectors, whole.vectors)


def test_max_sim_reads_our_rows(scanning: None, store: PostgresStore, morphik: Connection) -> None:
    """morphik-core's SQL scores our rows by MaxSim on signs; its best ones are our candidates."""
    pages = [page("ours", number) for number in range(1, 30)]
    store.add(pages)
    query = unit_vectors(6, 77)
    theirs = their_search(morphik, query)
    by_key = {page.key: signs(query) @ signs(page.vectors).T for page in pages}
    # Of bits, similarity is 1 - distance / 128: half of a cosine's range, moved above 0.
    expected = {key: float(((1 + scores.max(axis=1)) / 2).sum()) for key, scores in by_key.items()}
    found = {PageKey(document, number): score for document, number, score in theirs}
    assert found == pytest.approx(expected, abs=1e-5)
    best = {PageKey(document, number) for document, number, _ in theirs[:5]}
    assert best <= set(store.candidates(query, 10))


def test_what_morphik_reads_of_our_rows(store: PostgresStore, morphik: Connection) -> None:
    """Page n is chunk n - 1; text is content, metadata are JSON, bits are the signs."""
    ours = page("ours", 3, text="a\0b", metadata={"lang": "de"})
    store.add([ours])
    row = morphik.execute(
        "SELECT document_id, chunk_number, content, chunk_metadata, embeddings::text"
        " FROM multi_vector_embeddings"
    ).fetchone()
    assert row is not None
    assert row[:3] == ("ours", 2, "ab") and json.loads(row[3]) == {"lang": "de"}
    assert row[4] == literal(ours.vectors)


@pytest.mark.parametrize(("form", "error"), [("float16", 1e-3), ("int8", 5e-3)])
def test_our_pages_come_back_whole(url: str, form: Any, error: float) -> None:
    """Vectors come back as they were but for rounding; text, grid and thumbnail exactly."""
    store = PostgresStore(url, vectors=form)
    fields = {"text": "words", "metadata": {"a": [1]}, "thumbnail": b"jpeg"}
    written = page("ours", 1, grid=PatchGrid(2, 2, 1), **fields)
    store.add([written])
    [read] = store.fetch([written.key])
    assert np.abs(read.vectors - written.vectors).max() < error
    assert (read.text, read.metadata, read.thumbnail) == ("words", {"a": [1]}, b"jpeg")
    assert read.grid == PatchGrid(2, 2, 1)
    store.close()


def test_rows_of_morphik_have_the_vectors_of_their_signs(
    store: PostgresStore, morphik: Connection
) -> None:
    """So do our rows whose bits morphik-core changed, because our vectors are older than these."""
    vectors = unit_vectors(5, 1)
    insert(morphik, "theirs", 0, vectors)
    store.add([page("ours", 1)])
    morphik.execute(
        "UPDATE multi_vector_embeddings SET embeddings = %s WHERE document_id = 'ours'",
        (literal(vectors),),
    )
    for read in store.fetch([PageKey("theirs", 1), PageKey("ours", 1)]):
        np.testing.assert_allclose(read.vectors, signs(vectors), rtol=1e-6)


def test_filters_see_the_metadata_of_morphik(store: PostgresStore, morphik: Connection) -> None:
    """Filters read JSON and, in older rows, `str(dict)`; a change counts in the next search."""
    store.add([page("ours", 1, metadata={"lang": "de", "n": 1})])
    query = unit_vectors(4, 1)
    insert(morphik, "json", 0, query, '{"lang": "de", "n": true}')
    insert(morphik, "repr", 0, query, "{'lang': 'de', 'n': None}")
    insert(morphik, "none", 0, query, "no metadata at all")
    german = store.candidates(query, 9, Filter(metadata={"lang": "de"}))
    assert [key.document for key in german] == ["json", "ours", "repr"]
    assert store.candidates(query, 9, Filter(metadata={"n": 1})) == [PageKey("ours", 1)]
    morphik.execute("UPDATE multi_vector_embeddings SET chunk_metadata = '{}'")
    assert store.candidates(query, 9, Filter(metadata={"lang": "de"})) == []


def test_metadata_is_read_in_many_threads() -> None:
    """CPython's parser of literals fails where threads meet in it; a search never meets that."""
    written = {"lang": "de", "pages": [1, {"of": (2, None)}]}
    read = partial(parse_metadata, str(written))
    with collecting_garbage(), loaded(*(lambda: read() == written,) * 8, pause=0) as load:
        load.wait_for(2000)
    assert set(load.answers) == {True}


def test_of_a_page_that_morphik_wrote_twice_the_newer_row_counts(
    scanning: None, store: PostgresStore, morphik: Connection
) -> None:
    """morphik-core's table allows it; a search, a count and a fetch have the page once."""
    old, new = unit_vectors(5, 1), unit_vectors(5, 2)
    insert(morphik, "theirs", 0, old)
    insert(morphik, "theirs", 0, new)
    assert store.count() == 1
    [key] = store.candidates(old, 5)
    [read] = store.fetch([key])
    np.testing.assert_allclose(read.vectors, signs(new), rtol=1e-6)


def test_rows_without_vectors(scanning: None, store: PostgresStore, morphik: Connection) -> None:
    """A row without an array is not a page; one with an empty array is, but no search finds it."""
    insert(morphik, "none", 0, unit_vectors(3, 1))
    morphik.execute("UPDATE multi_vector_embeddings SET embeddings = NULL")
    insert(morphik, "empty", 0, unit_vectors(0, 1))
    store.add([Page(PageKey("bare", 1), unit_vectors(0, 1)), page("ours", 1)])
    assert store.count() == 3 and store.has("none") == frozenset()
    assert store.candidates(unit_vectors(4, 1), 5) == [PageKey("ours", 1)]
    shapes = [page.vectors.shape for page in store.fetch([PageKey("empty", 1), PageKey("bare", 1)])]
    assert shapes == [(0, 128), (0, 128)]


def test_two_writers_leave_each_page_once(url: str, morphik: Connection) -> None:
    """Two stores that replace the same documents at once leave each page once, and lose none."""

    def write(seed: int) -> None:
        store = PostgresStore(url)
        for turn in range(8):
            names = ("a", "b") if (turn + seed) % 2 else ("b", "a")
            store.add([page(name, n, seed) for name in names for n in range(1, 6)])
        store.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [1, 2]))
    rows = morphik.execute(
        "SELECT count(*), count(DISTINCT (document_id, chunk_number)), count(row)"
        " FROM multi_vector_embeddings LEFT JOIN pagevec_pages ON row = id"
    ).fetchone()
    assert rows == (10, 10, 10)


def test_a_cache_that_does_not_fit_is_not_needed(
    scanning: None,
    url: str,
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading the bits at each search, in several blocks, gives results that are as good."""
    monkeypatch.setattr(postgres_cache, "_ROWS_AT_ONCE", 10)
    pages = [page(name, number, metadata={"in": name}) for name in "ab" for number in range(1, 41)]
    store.add(pages)
    small, query = PostgresStore(url, cache_bytes=1), unit_vectors(4, 77)
    for where in (EVERYTHING, Filter(frozenset("a")), Filter(metadata={"in": "b"})):
        assert small.candidates(query, 15, where) == store.candidates(query, 15, where)
    small.close()


def test_their_table_stays_as_it_is(url: str) -> None:
    """Our writes add no column, trigger, constraint or index to morphik-core's table."""
    PostgresStore(url).close()
    with psycopg.connect(url, autocommit=True) as morphik:
        before = describe(morphik)
        store = PostgresStore(url)
        store.add([page("ours", 1)])
        store.close()
        assert describe(morphik) == before


def test_rows_of_ours_do_not_outlive_theirs(url: str, morphik: Connection) -> None:
    """Rows that morphik-core deleted are swept from our table when a store is opened."""
    store = PostgresStore(url)
    store.add([page("ours", number) for number in (1, 2)])
    morphik.execute("DELETE FROM multi_vector_embeddings WHERE chunk_number = 0")
    store.close()
    PostgresStore(url).close()
    assert morphik.execute("SELECT number FROM pagevec_pages").fetchall() == [(2,)]


def test_pages_of_morphik_have_128_dimensions(store: PostgresStore, morphik: Connection) -> None:
    """A search of theirs with another model is refused in words, where ours are not there yet."""
    insert(morphik, "theirs", 0, unit_vectors(4, 1))
    with pytest.raises(OtherModel, match="128 dimensions, these have 96: use"):
        store.candidates(unit_vectors(4, 1, dim=96), 5)
    assert store.candidates(unit_vectors(4, 1), 5) == [PageKey("theirs", 1)]
