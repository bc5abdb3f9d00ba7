"""A model of another dimension than 128 in morphik-core's database: theirs stays as it is."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import psycopg
import pytest
from morphik_core import Connection, describe, insert

import vectors
from pagevec.errors import OtherModel
from pagevec.search.retriever import Retriever
from pagevec.stores import hamming
from pagevec.stores.base import Filter
from pagevec.stores.fingerprint import agree_on_model, check_model
from pagevec.stores.postgres.store import PostgresStore
from pagevec.types import DocumentRecord, Page, PageKey
from vectors import unit_vectors

DIM = 320
page = partial(vectors.page, dim=DIM)
THEIRS = PageKey("theirs", 1)
WHOLE_ROWS = "SELECT *, ctid::text, xmin::text FROM multi_vector_embeddings ORDER BY id"


@pytest.fixture
def url(database: str) -> str:
    return database


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with PostgresStore(url) as store:
        yield store


@pytest.fixture
def morphik(url: str, store: PostgresStore) -> Iterator[Connection]:
    """morphik-core's own connection; it has one page in its table."""
    with psycopg.connect(url, autocommit=True) as connection:
        insert(connection, THEIRS.document, 0, unit_vectors(5, 1))
        yield connection


@pytest.fixture
def scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few pages are searched by their sign bits."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)


def use(store: PostgresStore) -> None:
    """Do all that a store is used for, and leave a document of two pages in it."""
    agree_on_model(store, unit_vectors(9, 1, DIM))
    store.add([page("ours", 1), page("ours", 2), page(THEIRS.document, 1), page("gone", 1)])
    store.add([page("ours", 1, seed=1, text="words")])
    for name in ("ours", "gone", THEIRS.document):
        store.ledger.write(DocumentRecord(name, "00", 1, complete=True))
    store.candidates(page("ours", 2).vectors, 1)
    store.rename({"ours": "renamed"})
    assert store.delete("gone") == store.delete(THEIRS.document) == 1


def test_their_table_and_function_stay_as_they_are(
    url: str, store: PostgresStore, morphik: Connection
) -> None:
    """The catalog knows the same table, index, sequence and function; no row was written."""
    before, rows = describe(morphik), morphik.execute(WHOLE_ROWS).fetchall()
    assert len(rows) == len(before["functions"]) == 1
    assert [relation[1] for relation in before["relations"]] == [
        "multi_vector_embeddings_id_seq", "multi_vector_embeddings",
        "multi_vector_embeddings_pkey", "idx_multi_vector_document_id",
    ]  # fmt: skip
    use(store)
    with PostgresStore(url) as again:
        assert again.documents() == {"renamed": 2}
    assert describe(morphik) == before
    assert morphik.execute(WHOLE_ROWS).fetchall() == rows
    assert morphik.execute("SELECT count(*) FROM pagevec_pages").fetchone() == (0,)


def test_their_pages_are_found_with_128_dimensions_alone(
    scanning: None, store: PostgresStore, morphik: Connection
) -> None:
    """Beside pages of 320 dimensions theirs are no part of the store; without these they are."""
    query = unit_vectors(4, 1)
    assert store.candidates(query, 5) == [THEIRS]
    use(store)
    assert (store.count(), store.has(THEIRS.document)) == (2, frozenset())
    assert store.fetch([THEIRS]) == []
    wide = page("ours", 2).vectors
    assert store.candidates(wide, 5)[0] == PageKey("renamed", 2)
    assert THEIRS not in store.candidates(wide, 5)
    with pytest.raises(OtherModel, match="320 dimensions, these have 128: use"):
        store.candidates(query, 5)
    with pytest.raises(OtherModel, match="320 dimensions, these have 128: use"):
        check_model(store, unit_vectors(9, 1))
    store.delete("renamed")
    assert store.fingerprint() is None  # of the pages that are there
    check_model(store, unit_vectors(9, 1))
    assert store.candidates(query, 5) == [THEIRS]
    assert [found.vectors.shape for found in store.fetch([THEIRS])] == [(5, 128)]


def test_a_model_that_stored_nothing_keeps_no_other_away(
    store: PostgresStore, morphik: Connection
) -> None:
    """A fingerprint without pages gives way to that of the next model, beside pages of theirs."""
    agree_on_model(store, unit_vectors(9, 1, DIM))
    check_model(store, unit_vectors(9, 2))
    agree_on_model(store, unit_vectors(9, 2))
    assert store.fingerprint() is not None
    store.add([Page(PageKey("ours", 1), unit_vectors(3, 1))])
    with pytest.raises(OtherModel, match="128 dimensions, these have 320: use"):
        agree_on_model(store, unit_vectors(9, 1, DIM))
    assert store.documents() == {"ours": 1, THEIRS.document: 1}


@pytest.mark.parametrize("form", ["float16", "int8", "binary"])
@pytest.mark.parametrize("dim", [100, 4096])
def test_formats_and_a_cache_that_does_not_fit(
    scanning: None, url: str, form: Any, dim: int
) -> None:
    """Vectors come back as exact as their format is; without a cache the same pages are found."""
    pages = [
        Page(PageKey("a", n), unit_vectors(n, n, dim), {"even": n % 2 == 0}) for n in range(1, 9)
    ]
    error = {"float16": 1e-3, "int8": 5e-3, "binary": 1.0}[form]
    with (
        PostgresStore(url, vectors=form) as store,
        PostgresStore(url, vectors=form, cache_bytes=0) as small,
    ):
        store.add([*pages, Page(PageKey("empty", 1), unit_vectors(0, 1, dim))])
        for wanted in pages:
            [found] = small.fetch([wanted.key])
            assert np.abs(found.vectors - wanted.vectors).max() < error
            assert form == "int8" or np.array_equal(found.vectors > 0, wanted.vectors > 0)
            assert store.candidates(wanted.vectors, 1) == [wanted.key]
            assert small.candidates(wanted.vectors, 1) == [wanted.key]
        where = Filter(metadata={"even": True})
        assert len(small.candidates(pages[0].vectors, 1, where)) == 4
        assert store.candidates(pages[0].vectors, 1, where) == small.candidates(
            pages[0].vectors, 1, where
        )
        assert store.fetch([PageKey("empty", 1)])[0].vectors.shape == (0, dim)


@pytest.mark.parametrize(
    "damage",
    ["signs = 'cut'", "vectors = 'cut'", "vectors = ''", "signs = ''", "dim = 48", "dim = 0"],
)
def test_damaged_rows_cost_their_page(
    url: str, store: PostgresStore, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that cannot be read is left out of searches, however they go."""
    pages = [page("a", number) for number in range(1, 7)]
    store.add(pages)
    with psycopg.connect(url) as connection:
        statement = f"UPDATE pagevec_whole_pages SET {damage} WHERE number = 3"  # noqa: S608
        connection.execute(statement.encode())
    for scan_from in (2000, 0):
        monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
        hits = Retriever(None, store).search_vectors(pages[4].vectors, 9)  # type: ignore[arg-type]
        assert hits[0].key.number == 5
        assert {hit.key.number for hit in hits} == {1, 2, 4, 5, 6}
