"""Renaming documents beside morphik-core and other writers, in its own table."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from morphik_core import Connection, insert

from pagevec.errors import StoreError
from pagevec.stores.postgres.store import PostgresStore
from pagevec.types import DocumentRecord, PageKey
from vectors import page, unit_vectors


@pytest.fixture
def url(database: str) -> str:
    return database


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with PostgresStore(url) as store:
        yield store


@pytest.fixture
def morphik(url: str, store: PostgresStore) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_a_rename_leaves_rows_of_morphik_alone(store: PostgresStore, morphik: Connection) -> None:
    """Only documents of our ledger are renamed; no other row is written, not even unchanged."""
    insert(morphik, "theirs", 0, unit_vectors(3, 1), "{'a': 1}")
    store.add([page("ours", 1)])
    store.ledger.write(DocumentRecord("ours", "00", 1))
    whole_row = "SELECT t.*, xmin::text FROM multi_vector_embeddings t WHERE document_id = 'theirs'"
    before = morphik.execute(whole_row).fetchall()
    store.rename({"ours": "new"})
    for names in ({"theirs": "new name"}, {"new": "theirs"}):
        with pytest.raises(StoreError, match="'theirs'"):
            store.rename(names)
    assert morphik.execute(whole_row).fetchall() == before
    assert morphik.execute("SELECT document, number FROM pagevec_pages").fetchall() == [("new", 1)]


def test_a_rename_over_leftovers(store: PostgresStore, morphik: Connection) -> None:
    """Our rows of a document that morphik-core deleted do not keep its name taken."""
    store.add([page("gone", 1)])
    morphik.execute("DELETE FROM multi_vector_embeddings WHERE document_id = 'gone'")
    store.add([page("ours", 1, thumbnail=b"jpeg")])
    store.ledger.write(DocumentRecord("ours", "00", 1))
    store.rename({"ours": "gone"})
    assert store.fetch([PageKey("gone", 1)])[0].thumbnail == b"jpeg"


def test_a_rename_of_very_many_documents(store: PostgresStore, morphik: Connection) -> None:
    """More documents than the server has locks are renamed in one call."""
    many = 10_000
    morphik.execute(
        "INSERT INTO multi_vector_embeddings (document_id, chunk_number, content, embeddings)"
        " SELECT 'a/' || n, 0, '', '{}' FROM generate_series(1, %s) AS n",
        (many,),
    )
    morphik.execute(
        "INSERT INTO pagevec_documents SELECT document_id, '', 1, true FROM multi_vector_embeddings"
    )
    store.rename({f"a/{n}": f"b/{n}" for n in range(1, many + 1)})
    assert all(record.name.startswith("b/") for record in store.ledger.records())
    assert (store.count(), store.has("b/9999")) == (many, {1})


def test_a_rename_beside_a_writer(store: PostgresStore, morphik: Connection) -> None:
    """Pages written while their document is renamed are there once, under one name or another."""

    def write(turn: int) -> None:
        store.ledger.write(DocumentRecord("a", "00"))
        store.add([page("a", number, seed=turn) for number in range(1, 6)])

    def rename(turn: int) -> None:
        with suppress(StoreError):  # nothing was written since the last rename
            store.rename({"a": f"moved/{turn}"})

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work, turn) for turn in range(30) for work in (write, rename)]
        for done in both:
            done.result()
    rows = morphik.execute(
        "SELECT count(*), count(DISTINCT (document_id, chunk_number)), count(row),"
        " count(*) FILTER (WHERE document_id = document)"
        " FROM multi_vector_embeddings LEFT JOIN pagevec_pages ON row = id"
    ).fetchone()
    assert rows is not None and rows[0] % 5 == 0 and len(set(rows)) == 1
