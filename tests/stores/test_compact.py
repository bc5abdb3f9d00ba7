"""Old stores are condensed where they are: beside others, whatever stops it, and never twice."""

import json
import random
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
from contract import another_process, as_mere_user, elsewhere

from conftest import EXAMPLES, Service, new_store_name, pagevec
from pagevec.client import Client
from pagevec.errors import InvalidRequest
from pagevec.grid import PatchGrid
from pagevec.search.index import Index
from pagevec.search.similarity_maps import token_maps
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.compact import OF_OTHERS, compact
from pagevec.stores.condense import OFF, error_bound
from pagevec.stores.export import export
from pagevec.stores.sqlite import space
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import DocumentRecord, Page, PageKey
from stores import morphik_core
from vectors import unit_vectors

GRID = PatchGrid(20, 14, 3)


@pytest.fixture(params=["sqlite", "postgres", "qdrant-embedded"])
def store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store, of each kind."""
    return new_store_name(request, tmp_path)


def blank_page(document: str, number: int, dim: int = 128) -> Page:
    """Return a page of 300 vectors, most of them those of blank paper."""
    seed = 1000 * (sum(document.encode()) % 100) + number
    vectors = unit_vectors(300, seed, dim)
    blank = unit_vectors(1, seed + 1, dim) + 0.02 * vectors[100:]
    vectors[100:] = blank / np.linalg.norm(blank, axis=1, keepdims=True)
    fields = {"text": f"page {number} of {document}", "thumbnail": b"\xff\xd8" * 99}
    return Page(PageKey(document, number), vectors, {"file": document}, grid=GRID, **fields)


def fill(store: Store, pages: int = 12, dim: int = 128) -> list[PageKey]:
    """Add two documents of whole pages, as stores of before have them."""
    for document in ("a.pdf", "b.pdf"):
        numbers = range(1, pages // 2 + 1)
        store.add([blank_page(document, number, dim) for number in numbers])
        store.ledger.write(DocumentRecord(document, "00", pages // 2, complete=True))
    return [PageKey(one, number) for one in ("a.pdf", "b.pdf") for number in numbers]


@pytest.mark.parametrize("dim", [128, 96])
def test_pages_are_condensed_where_they_are(store: Store, store_name: str, dim: int) -> None:
    """A third of the vectors stays; pages, maps, records and searches are what they were."""
    keys = fill(store, dim=dim)
    before, records = store.fetch(keys), store.ledger.records()
    progress: list[tuple[int, int]] = []
    done = compact(store, 0.99, lambda *state: progress.append(state))
    assert (done.pages, done.already, done.left) == (12, 0, {})
    assert done.before == 12 * 300 and 12 * 101 <= done.after < 12 * 115
    assert progress[-1] == (12, 12) and progress == sorted(progress)
    assert (store.condensing(), store.ledger.records()) == (0.99, records)
    with open_store(store_name) as again:
        after = again.fetch(keys)
    query = unit_vectors(6, 3, dim)
    for old, new in zip(before, after, strict=True):
        assert replace(new, vectors=0, token_rows=0, metadata=0).__dict__ | {"metadata": 0} == (
            replace(old, vectors=0, token_rows=0, metadata=0).__dict__ | {"metadata": 0}
        )
        assert dict(new.metadata) == dict(old.metadata)
        maps, former = token_maps(query, new), token_maps(query, old)
        assert maps.shape == former.shape
        assert np.abs(maps - former).max() <= error_bound(0.99) + 1e-3
    assert store.candidates(before[7].vectors[:20], 1)[0] in keys
    again_done = compact(store, 0.99)
    assert (again_done.pages, again_done.already) == (0, 12)


def test_off_brings_nothing_back(store: Store) -> None:
    """What was dropped cannot be had again, and the threshold stays."""
    with pytest.raises(InvalidRequest, match="do not come back"):
        compact(store, OFF)
    assert store.condensing() is None


def test_documents_of_others_at_work(store: Store) -> None:
    """A document that a worker is writing is left for the next time, and so are no others."""
    keys = fill(store)
    assert store.ledger.lease("a.pdf", "somebody", 60)
    done = compact(store, 0.99)
    assert done.left == {"a.pdf": "another worker is writing it: start this again later"}
    rows = [page.token_rows is None for page in store.fetch(keys)]
    assert rows == [key.document == "a.pdf" for key in keys]
    store.ledger.release("a.pdf", "somebody")
    assert compact(store, 0.99).pages == 6


def test_rows_of_morphik_core_stay(database: str) -> None:
    """What morphik-core wrote alone is left as it is, and so is what it has replaced."""
    with open_store(database) as store, psycopg.connect(database) as theirs:
        keys = fill(store)
        vectors = unit_vectors(5, 8)
        theirs.execute(
            "INSERT INTO multi_vector_embeddings (document_id, chunk_number, content, embeddings)"
            " VALUES ('theirs', 0, '', %s::bit(128)[])",
            (morphik_core.literal(vectors),),
        )
        theirs.execute(
            "UPDATE multi_vector_embeddings SET embeddings = %s::bit(128)[]"
            " WHERE document_id = 'a.pdf' AND chunk_number = 1",
            (morphik_core.literal(vectors),),
        )
        theirs.commit()
        versions = "SELECT document_id, chunk_number, xmin, embeddings FROM multi_vector_embeddings"
        versions += " WHERE document_id = 'theirs' OR (document_id, chunk_number) = ('a.pdf', 1)"
        before = theirs.execute(versions).fetchall()
        theirs.commit()
        done = compact(store, 0.99)
        assert (done.pages, done.left) == (11, {"theirs": OF_OTHERS})
        assert theirs.execute(versions).fetchall() == before
        [kept] = store.fetch([keys[0]])
        [(bits,)] = theirs.execute(
            "SELECT array_length(embeddings, 1) FROM multi_vector_embeddings"
            " WHERE document_id = 'a.pdf' AND chunk_number = 0"
        )
        assert bits == len(kept.vectors) < 120  # morphik-core finds the page by fewer bits


COMPACT = """
from pagevec.stores.compact import compact
print("begun", flush=True)
compact(store, 0.99)
"""


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Killed at random moments, it goes on each time; in the end the store is as if undisturbed."""
    pages, chance = 120, random.Random(3)  # noqa: S311 - repeatable, not secret
    names = [str(tmp_path / one) for one in ("killed", "undisturbed")]
    for name in names:
        with SqliteStore(name) as store:
            keys = fill(store, pages)
    elsewhere(names[1], COMPACT)
    kills = 0
    for _ in range(8):
        process = another_process(names[0], COMPACT)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.25 * chance.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        with SqliteStore(names[0]) as store:
            assert len(store.fetch(keys)) == pages  # whole or condensed, each is a page
    assert kills >= 2
    elsewhere(names[0], COMPACT)
    with SqliteStore(names[0]) as killed, SqliteStore(names[1]) as undisturbed:
        both = zip(killed.fetch(keys), undisturbed.fetch(keys), strict=True)
        for one, other in both:
            np.testing.assert_array_equal(one.vectors, other.vectors)
            np.testing.assert_array_equal(one.token_rows, other.token_rows)
        assert killed.condensing() == undisturbed.condensing()


WRITE = """
from dataclasses import replace
print("begun", flush=True)
for number in range(1, 40):
    store.add([page("new.pdf", number)])
    store.delete("b.pdf")
"""
READ = """
from pagevec.types import PageKey
import numpy as np
from vectors import unit_vectors
print("begun", flush=True)
keys = [PageKey("a.pdf", number) for number in range(1, 31)]
for turn in range(30):
    pages = store.fetch(keys)
    assert len(pages) == 30
    assert all(len(one.token_vectors) == 300 for one in pages)
    store.candidates(unit_vectors(4, turn), 5)
"""


@pytest.mark.parametrize("store_name", ["sqlite", "postgres"], indirect=True)
def test_beside_a_writer_and_a_reader(store: Store, store_name: str) -> None:
    """Readers see whole pages throughout; what a writer adds and deletes meanwhile stays so."""
    fill(store, 60)
    others = [another_process(store_name, code) for code in (WRITE, READ)]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    compact(store, 0.99)
    for other in others:
        other.communicate(timeout=60)
    assert [other.returncode for other in others] == [0, 0]
    assert store.documents() == {"a.pdf": 30, "new.pdf": 39}


def test_space_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file shrinks to what its pages take; where there is no room for that, it says so."""
    with SqliteStore(tmp_path) as store:
        keys = fill(store, 60)
        compact(store, 0.99)
    before = (tmp_path / FILE).stat().st_size
    with SqliteStore(tmp_path) as store:
        lacking = lambda *_: (tmp_path, 10_000_000)  # noqa: E731
        with monkeypatch.context() as patched:
            patched.setattr(space, "_find_lacking", lacking)
            said = store.give_back_space()
        assert "takes 10.0 MB of room in" in said and str(tmp_path) in said
        assert "of its file are given back" in store.give_back_space()
        assert (tmp_path / FILE).stat().st_size < 0.6 * before
        assert len(store.fetch(keys)) == 60
        assert "are free in its file, for new pages" in store.give_back_space()


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """It is searched and measured as it is, and says why it is not condensed."""
    with SqliteStore(tmp_path / "store") as store:
        fill(store)
    said = as_mere_user(
        str(tmp_path / "store"),
        "import os; os.chmod(sys.argv[1], 0o500); os.chmod(sys.argv[1] + '/pages.sqlite3', 0o400)\n"
        "store = open_store(sys.argv[1], create=False)\n"
        "from pagevec.stores.compact import compact\n"
        "from pagevec.search.condensing import sample_pages\n"
        "print(len(sample_pages(store, 5)), store.condensing())\n"
        "try: compact(store, 0.99)\n"
        "except Exception as error: print(error)\n",
    )
    assert said.startswith("5 None") and "this user may not write" in said


@pytest.mark.parametrize("value", [b"", b"\x06\0\0\0junk", b"\xff" * 40])
def test_a_damaged_map_costs_its_page(
    value: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A map that leads elsewhere is noted as damage of its page, and the others are found."""
    with SqliteStore(tmp_path) as store:
        keys = fill(store)
        compact(store, 0.99)
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            connection.execute("UPDATE token_rows SET packed = ? WHERE page = 3", [value])
            connection.commit()
        assert [page.key for page in store.fetch(keys)] == [key for key in keys if key != keys[2]]
    [warning] = [record.getMessage() for record in caplog.records]
    assert "'a.pdf', page 3 is damaged" in warning and "the map of its tokens" in warning


def test_a_damaged_map_in_postgres(database: str) -> None:
    """The same in PostgreSQL."""
    with open_store(database) as store, psycopg.connect(database) as connection:
        keys = fill(store)
        compact(store, 0.99)
        connection.execute("UPDATE pagevec_pages SET token_rows = '\\x0600' WHERE number = 3")
        connection.commit()
        assert {page.key.number for page in store.fetch(keys)} == {1, 2, 4, 5, 6}


@pytest.mark.parametrize("store_name", ["sqlite"], indirect=True)
def test_exported_as_they_are(store: Store, tmp_path: Path) -> None:
    """Condensed pages are copied with their maps, and the threshold goes into a new store."""
    keys = fill(store)
    compact(store, 0.99)
    with open_store(str(tmp_path / "copy")) as copy:
        assert export(store, copy).copied == 12
        assert copy.condensing() == 0.99
        for one, other in zip(store.fetch(keys), copy.fetch(keys), strict=True):
            np.testing.assert_array_equal(one.vectors, other.vectors)
            np.testing.assert_array_equal(one.token_rows, other.token_rows)


def test_the_command(tmp_path: Path) -> None:
    """It measures without changing anything, asks for a threshold, condenses, and goes on."""
    name = tmp_path / "store"
    with SqliteStore(name) as store:
        fill(store, 40)
    before = (name / FILE).read_bytes()
    measured = pagevec("store", "compact", name, "--measure", "--pages", 20, cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    lines = measured.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "cosine",
        *map(str, (0.999, 0.998, 0.997, 0.995, 0.99)),
    ]
    assert "20 pages, 20 questions made from vectors of the pages" in measured.stderr
    assert (name / FILE).read_bytes() == before
    asked = pagevec("store", "compact", name, cwd=tmp_path)
    assert asked.returncode == 2 and "give --threshold" in asked.stderr
    wrong = pagevec("store", "compact", name, "--threshold", "0.2", cwd=tmp_path)
    assert wrong.returncode == 2 and "expected a cosine from 0.9 to 1" in wrong.stderr
    done = pagevec("store", "compact", name, "--threshold", 0.99, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "condensed: 40 pages now: 3" in done.stdout and "given back" in done.stdout
    assert (name / FILE).stat().st_size < 0.6 * len(before)
    again = pagevec("store", "compact", name, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["already"] == 40
    empty = pagevec("store", "compact", name, "--measure", cwd=tmp_path)
    assert empty.returncode != 0 and "nothing to measure" in empty.stderr


def test_measured_with_words(service: Service, tmp_path: Path) -> None:
    """With a service of the pages' model the queries are words of their text layers."""
    name = tmp_path / "store"
    with Client(service.url, service.key) as client, Index(name, client, condense=OFF) as index:
        assert not index.add(EXAMPLES).failed
    options = ("--measure", "--json", "--threshold", 0.995, "--url", service.url)
    measured = pagevec("store", "compact", name, *options, SERVICE_API_KEY=service.key)
    assert measured.returncode == 0, measured.stderr
    [loss] = json.loads(measured.stdout)
    assert loss["threshold"] == 0.995 and 0.3 < loss["kept"] < 0.6
    assert loss["bytes_after"] < 0.6 * loss["bytes_before"]
    assert loss["same_10"] == 1.0 and loss["largest_change"] < error_bound(0.995)


def test_a_store_that_was_told_to_keep_all(service: Service, tmp_path: Path) -> None:
    """`Index(condense=...)` decides for a new store, and says so where it has been decided."""
    with Client(service.url, service.key) as client:
        with Index(tmp_path / "store", client, condense=OFF) as index:
            assert not index.add(EXAMPLES / "annual-report.pdf").failed
            [document] = index.documents()
            [page] = index._index._store.fetch([PageKey(document.name, 1)])
            assert page.token_rows is None
        with (
            Index(tmp_path / "store", client, condense=0.99) as index,
            pytest.raises(InvalidRequest, match="keeps all vectors"),
        ):
            index.add(EXAMPLES / "annual-report.pdf")
