"""Stores that are damaged, cut or in another's hands: an error or a warning, never a wrong hit."""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest
from contract import elsewhere

from pagevec.errors import InvalidRequest, StoreError
from pagevec.search.retriever import Retriever
from pagevec.stores import hamming, open_store
from pagevec.stores.base import Store
from pagevec.stores.postgres.store import PostgresStore
from pagevec.stores.sqlite import database
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import Page, PageKey, ScoredPage
from postgres_server import new_database
from vectors import page, unit_vectors

PAGES = 12
VICTIM = PageKey("a", 5)


@pytest.fixture
def store(store_name: str) -> Iterator[Store]:
    with open_store(store_name) as store:
        store.add([page("a", number) for number in range(1, PAGES + 1)])
        yield store


def halves(damage: str) -> bytes:
    """Return bytes of the victim's vectors in float16 that no store of pagevec writes."""
    vectors = page(VICTIM.document, VICTIM.number).vectors.astype(np.float16)
    if damage == "cut":
        return vectors.tobytes()[:-7]
    if damage == "whole vectors are missing":
        return vectors[:-2].tobytes()
    if damage == "empty":
        return b""
    if damage == "random":
        return np.random.default_rng(1).bytes(vectors.nbytes)
    row = {"nan": np.nan, "inf": -np.inf, "long": 9.0, "short": 0.01, "zero": 0.0}[damage]
    vectors[1] = vectors[1] * np.float16(row)
    return vectors.tobytes()


def put(name: str, table: str, column: str, value: bytes) -> None:
    """Write `value` into the row of the victim, past the store."""
    if name.startswith("postgresql://"):
        with psycopg.connect(name) as connection:
            # The bits stay, of which the store keeps a digest.
            connection.execute(
                "UPDATE pagevec_pages SET vectors = %s WHERE document = %s AND number = %s",
                (value, VICTIM.document, VICTIM.number),
            )
        return
    with closing(sqlite3.connect(Path(name) / FILE)) as connection:
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE page ="  # noqa: S608
            " (SELECT id FROM pages WHERE document = ? AND number = ?)",
            (value, VICTIM.document, VICTIM.number),
        )
        connection.commit()


def search(store: Store, query: np.ndarray) -> list[ScoredPage]:
    return Retriever(None, store).search_vectors(query, PAGES)  # type: ignore[arg-type]


INSERT = "INSERT INTO multi_vector_embeddings (document_id, chunk_number, content, embeddings)"
DAMAGES = ["cut", "whole vectors are missing", "empty", "random", "nan", "inf", "long"]


@pytest.mark.parametrize("damage", [*DAMAGES, "short", "zero"])
@pytest.mark.parametrize("scan_from", [0, 2000])
def test_damaged_vectors_are_never_ranked(
    store: Store,
    store_name: str,
    damage: str,
    scan_from: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A page with damaged vectors is in no result, however it is searched, and is named once."""
    monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
    put(store_name, "contents", "vectors", halves(damage))
    with caplog.at_level(logging.WARNING), np.errstate(all="raise"):
        for number in (VICTIM.number, 1, VICTIM.number):
            found = search(store, page("a", number).vectors)
            assert {one.key.number for one in found} == set(range(1, PAGES + 1)) - {5}
            assert all(np.isfinite(one.score) for one in found)
            assert number == VICTIM.number or found[0].key.number == number
        assert store.fetch([VICTIM]) == []
    [warning] = [record.getMessage() for record in caplog.records]
    assert "'a', page 5 is damaged and left out of searches" in warning


@pytest.mark.parametrize("value", [b"\x55" * 17, b"", b"\xff" * 160])
@pytest.mark.parametrize("scan_from", [0, 2000])
def test_damaged_sign_bits(
    value: bytes, scan_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sign bits of a wrong length cost their page, not the search."""
    monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
    with SqliteStore(tmp_path) as store:
        store.add([page("a", number) for number in range(1, PAGES + 1)])
        put(str(tmp_path), "bits", "packed", value)
        found = search(store, page("a", 3).vectors)
        assert found[0].key.number == 3
        assert VICTIM not in {one.key for one in found}


@pytest.mark.parametrize(
    "array", ["ARRAY[NULL, B'1']", "ARRAY[]", "ARRAY[ARRAY[B'1'], ARRAY[B'0']]"]
)
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_odd_arrays_of_bits(
    postgres: str, array: str, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's row whose bits are not a list of 128 bits each costs that row alone."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)
    url = new_database(postgres)
    with PostgresStore(url, cache_bytes=cache_bytes) as store:
        store.add([page("a", number) for number in range(1, PAGES + 1)])
        with psycopg.connect(url) as connection:
            bits = array.replace("B'1'", f"B'{'1' * 128}'").replace("B'0'", f"B'{'0' * 128}'")
            connection.execute(f"{INSERT} VALUES ('theirs', 0, '', {bits}::bit(128)[])".encode())
        found = search(store, page("a", 3).vectors)
        assert found[0].key == PageKey("a", 3)
        assert "theirs" not in {one.key.document for one in found if one.score > 0}


def test_vectors_that_no_model_should_make(store: Store) -> None:
    """Vectors that are not finite or not of unit length do not get into a store."""
    good = unit_vectors(4, 1)
    for wrong in (3 * good, good / 3, np.where(good > 0.2, np.nan, good), 0 * good):
        with pytest.raises(StoreError, match=r"new\.pdf, page 7: .* not of unit length"):
            store.add([page("b", 1), Page(PageKey("new.pdf", 7), np.float32(wrong))])
    assert store.count() == PAGES
    for close in (0.96 * good, 1.04 * good):  # as int8 on the way may leave them
        store.add([Page(PageKey("close", 1), np.float32(close))])


def test_a_query_that_is_not_finite(store: Store) -> None:
    """A model that answers a query with NaN gets no arbitrary pages."""
    with pytest.raises(InvalidRequest, match="not finite"):
        search(store, np.full((3, 128), np.nan, np.float32))


def test_a_damaged_fingerprint(store: Store, store_name: str) -> None:
    """A fingerprint that is damaged is not taken for that of another model."""
    store.save_fingerprint(unit_vectors(3, 1))
    wrong = np.full((3, 128), np.nan, np.float16).tobytes()
    if store_name.startswith("postgresql://"):
        with psycopg.connect(store_name) as connection:
            connection.execute("UPDATE pagevec_probe SET vectors = %s", (wrong,))
    else:
        with closing(sqlite3.connect(Path(store_name) / FILE)) as connection:
            connection.execute("UPDATE probe SET vectors = ?", (wrong,))
            connection.commit()
    with pytest.raises(StoreError, match="fingerprint of its model is damaged"):
        store.fingerprint()


CUT = """
import os, sqlite3, threading, time
from pagevec.errors import StoreError
from pagevec.stores import hamming
from pagevec.types import PageKey
file = sys.argv[1] + "/pages.sqlite3"
hamming.SCAN_FROM = 0
keys = [PageKey("a", number) for number in range(1, 400)]
store.add([page(key.document, key.number, thumbnail=b"x" * 40_000) for key in keys])
sqlite3.connect(file).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
failed, ended = [], threading.Event()
def read():
    while not ended.is_set():
        try:
            store.candidates(page("a", 3).vectors, 5)
            assert len(store.fetch(keys)) == len(keys)
        except StoreError as error:
            failed.append(str(error))
readers = [threading.Thread(target=read) for _ in range(4)]
for reader in readers: reader.start()
time.sleep(0.3)
too_early = list(failed)
os.truncate(file, os.path.getsize(file) // 3)
time.sleep(0.5)
ended.set()
for reader in readers: reader.join()
assert not too_early, too_early
assert failed and all(file in one for one in failed), failed
"""


def test_a_file_that_is_cut_while_it_is_searched(tmp_path: Path) -> None:
    """Threads that search a file which is cut get errors that name it; the process lives on."""
    elsewhere(str(tmp_path), CUT)


def test_other_stores_go_on(tmp_path: Path) -> None:
    """A store that is cut is an error of its own: another one in the same process is searched."""
    with SqliteStore(tmp_path / "cut") as cut, SqliteStore(tmp_path / "whole") as whole:
        for store in (cut, whole):
            store.add([page("a", number) for number in range(1, 50)])
        cut._database.close()
        os.truncate(tmp_path / "cut" / FILE, 20_000)
        (tmp_path / "cut" / f"{FILE}-wal").unlink(missing_ok=True)
        with pytest.raises(StoreError, match="cut"):
            search(cut, page("a", 3).vectors)
        assert search(whole, page("a", 3).vectors)[0].key.number == 3


def test_a_full_disk(tmp_path: Path) -> None:
    """What does not fit is an error that says so, and nothing of it is stored."""
    with SqliteStore(tmp_path) as store:
        store.add([page("a", 1)])
        with store._database.reading() as connection:
            connection.execute("PRAGMA max_page_count = 20").fetchall()
        with pytest.raises(StoreError, match=r"pages\.sqlite3: .* full: make room"):
            store.add([page("b", number, thumbnail=b"x" * 99_999) for number in range(1, 9)])
        assert store.count() == 1


def test_a_lock_that_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that waits for another one waits for a bounded time, and says why it gave up."""
    with SqliteStore(tmp_path) as store:
        store.add([page("a", 1)])
    monkeypatch.setattr(database, "_WAIT_SECONDS", 0.2)
    with SqliteStore(tmp_path) as store, closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="keeps it locked"):
            store.add([page("a", 2)])
        assert store.count() == 1  # readers are not concerned


def test_a_fork(store: Store, store_name: str) -> None:
    """A store that was opened before a fork is a clear error in the child; a new one works.

    The parent's store works on while and after the child uses and closes its copy.
    """
    search(store, page("a", 3).vectors)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = []
            for call in (store.count, lambda: search(store, page("a", 3).vectors)):
                try:
                    call()
                except StoreError as error:
                    said.append(str(error))
            store.close()
            with open_store(store_name) as own:
                said.append(str(search(own, page("a", 3).vectors)[0].key.number))
            os.write(writing, "\n".join(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        timer = threading.Timer(30, os.kill, (child, 9))
        timer.start()
        said = answers.read().splitlines()
        timer.cancel()
    os.waitpid(child, 0)
    assert [("before this process was forked" in one) for one in said] == [True, True, False]
    assert said[2] == "3"
    assert search(store, page("a", 3).vectors)[0].key.number == 3
    store.add([page("b", 1)])
