"""The inverted lists of a store in SQLite: what a search reads in place of all bits."""

import logging
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from contract import another_process, fill
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagevec.cli import main
from pagevec.search.maxsim import maxsim
from pagevec.stores import hamming
from pagevec.stores.centroids import Centroids
from pagevec.stores.sqlite import bits_file, lists, segments
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import MultiVector, Page, PageKey
from vectors import page, unit_vectors

SEGMENT, MERGED = 16, 3


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozens of pages are as many as thousands: they are put into lists, and merged."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 32)
    monkeypatch.setattr(segments, "SEGMENT", SEGMENT)
    monkeypatch.setattr(segments, "_MERGED", MERGED)
    monkeypatch.setattr(bits_file, "WORTH_IT", 32)
    monkeypatch.setattr(lists, "_FIRST", 40)
    monkeypatch.setattr(lists, "_MOST", 6)
    monkeypatch.setattr(lists, "_MOST_SHARE", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path) as opened:
        yield opened


def near(store: SqliteStore, document: str, number: int, dim: int = 128) -> PageKey:
    """Return the first candidate for a query that is close to a page's vectors."""
    noise = unit_vectors(3 + number % 7, 77, dim)
    query = page(document, number, dim=dim).vectors + np.float32(0.2) * noise
    return store.candidates(query / np.linalg.norm(query, axis=1, keepdims=True), 3)[0]


def count_rows(store: SqliteStore, table: str) -> int:
    with store._database.reading() as connection:
        [(count,)] = connection.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
    return int(count)


def listed(store: SqliteStore) -> dict[int, set[int]]:
    """Return the pages of each centroid, over all segments."""
    found: dict[int, set[int]] = {}
    with store._database.reading() as connection:
        for id, packed in connection.execute("SELECT id, pages FROM lists"):
            pages = segments.unpack_list(packed, 1 << 20).tolist()
            assert pages == sorted(set(pages)), "a list has each page once, in order"
            found.setdefault(id % 65536, set()).update(pages)
    return found


def in_file(store: SqliteStore) -> dict[int, bytes]:
    """Return the bits that the file has of each page."""
    with store._database.reading() as connection:
        [(last,)] = connection.execute("SELECT max(id) FROM pages")
        blocks, _ = store._lists._bits.find(connection, np.arange(last + 1, dtype=np.uint32))
        found = dict[int, bytes]()
        for block in blocks:
            joined = np.empty((sum(block.lengths), 16), np.uint8)
            block.fill(joined)
            assert not len(block.damaged)
            parts = np.split(joined, np.cumsum(block.lengths)[:-1])
            found.update(zip(block.ids.tolist(), map(np.ndarray.tobytes, parts), strict=True))
    return found


def check_file(store: SqliteStore) -> None:
    """The file has the bits of each page that does not wait, as the database has them."""
    with store._database.reading() as connection:
        rows = connection.execute(
            "SELECT page, packed FROM bits JOIN pages ON pages.id = page"
            " WHERE revision <= (SELECT revision FROM bits_file)"
        )
        stored = dict(rows.fetchall())
    there = in_file(store)
    assert {id: there.get(id) for id in stored} == stored
    assert len(stored) > store.count() - 2 * SEGMENT


def check_lists(store: SqliteStore) -> None:
    """Each page that does not wait is in the lists of its vectors' centroids, and in no others."""
    with store._database.reading() as connection:
        state = store._lists._state(connection)
        assert state is not None
        rows = "SELECT document, number, id FROM pages WHERE revision <= ?"
        ids = {PageKey(*key): id for *key, id in connection.execute(rows, [state.revision])}
        levels = [level for (level,) in connection.execute("SELECT level FROM segments")]
    assert len(ids) > store.count() - 2 * SEGMENT
    assert all(levels.count(level) < MERGED for level in levels)
    expected: dict[int, set[int]] = {}
    for key, id in ids.items():
        for centroid in state.centroids.assign(store.fetch([key])[0].vectors).tolist():
            expected.setdefault(centroid, set()).add(id)
    assert listed(store) == expected


def test_each_page_is_where_its_vectors_fall(store: SqliteStore) -> None:
    """After many segments and merges lists and file are complete, and have nothing else."""
    fill(store, "a", 200)
    check_lists(store)
    check_file(store)
    assert count_rows(store, "segments") < 200 / SEGMENT / MERGED + 2 * MERGED


def test_candidates_after_changes(store: SqliteStore) -> None:
    """Pages are found whether they are in lists, wait for them, were replaced or renamed."""
    fill(store, "a", 90)
    fill(store, "b", 40)
    assert all(near(store, "a", number) == PageKey("a", number) for number in range(1, 91))
    store.add([page("a", number, seed=0) for number in range(1, 4)])
    moved = [Page(PageKey("b", number), page("c", number).vectors) for number in range(1, 41)]
    store.add(moved)
    for number in range(1, 41):
        assert near(store, "c", number) == PageKey("b", number)
    assert store.delete("a") == 90
    for number in range(1, 91):
        assert near(store, "a", number).document == "b"
    fill(store, "a", 30)
    assert all(near(store, "a", number) == PageKey("a", number) for number in range(1, 31))


def clustered(store: SqliteStore, pages: int) -> list[MultiVector]:
    """Add pages whose vectors gather in places, as those of real pages do."""
    chance = np.random.default_rng(0)
    places = unit_vectors(60, 1)
    made = []
    for number in range(1, pages + 1):
        vectors = places[chance.integers(60, size=30)] + 0.06 * chance.standard_normal((30, 128))
        made.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
        store.add([Page(PageKey("a", number), made[-1])])
    return made


def test_recall(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine in ten of the best pages are among the candidates, of which there are few."""
    monkeypatch.setattr(segments, "SEGMENT", 64)
    pages = clustered(store, 500)
    found = 0
    for turn in range(20):
        query = pages[turn * 20][:8]
        best = np.argsort(-maxsim(query, pages), kind="stable")[:10]
        candidates = {key.number for key in store.candidates(query, 60)}
        assert len(candidates) == 60
        found += len(candidates & set((best + 1).tolist()))
    assert found >= 0.9 * 200


@pytest.mark.parametrize(("far", "expected"), [([40], 40), ([39, 40], 4 * 39)])
def test_a_tenth_of_the_nearest_may_lie_far_behind(
    far: list[int], expected: int, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of ten near pages does not lengthen a search; two do, by the place of the first."""
    monkeypatch.setattr(lists, "_WATCHED", 10)
    near_ones, compared = [*range(1, 11 - len(far)), *far], list[int]()

    def compare(
        _: sqlite3.Connection, ids: NDArray[np.uint32], __: MultiVector
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        compared.extend(ids.tolist())
        return ids, np.where(np.isin(ids, near_ones), 0, ids).astype(np.float32)

    monkeypatch.setattr(store._lists, "_compare", compare)
    promising, none = np.arange(1, 401, dtype=np.uint32), np.empty(0, np.uint32)
    with store._database.reading() as connection:
        found = store._lists._nearest(connection, promising, none, unit_vectors(4, 1), 10)
    assert set(found.tolist()) == set(near_ones)
    assert compared == list(range(1, expected + 1))


@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_bits_are_read_until_the_nearest_are_found(
    spread: float, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few where lists tell the nearest pages from the others, up to the limit where they do not."""
    monkeypatch.setattr(lists, "_WATCHED", 3)
    chance = np.random.default_rng(5)
    query = unit_vectors(8, 3)
    for number in range(1, 401):
        vectors = query + spread * number / 10 * chance.standard_normal((8, 128))
        if spread == 1.0:
            vectors = chance.standard_normal((8, 128))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.add([Page(PageKey("a", number), vectors.astype(np.float32))])
    read, compare = list[int](), store._lists._compare

    def watched(
        connection: sqlite3.Connection, ids: NDArray[np.uint32], query: MultiVector
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        read.extend(ids.tolist())
        return compare(connection, ids, query)

    monkeypatch.setattr(store._lists, "_compare", watched)
    found = [key.number for key in store.candidates(query, 5)]
    with store._database.reading() as connection:
        [(waiting,)] = connection.execute(
            "SELECT count(*) FROM pages WHERE revision > (SELECT revision FROM centroids)"
        )
    compared = len(read) - waiting
    assert len(set(read)) == len(read)
    if spread == 1.0:
        assert 40 < compared <= 6 * 20  # six times the root of 400
    else:
        assert compared == 40
        assert set(found) <= set(range(1, 15))


@pytest.mark.parametrize("form", ["float16", "int8", "binary"])
@pytest.mark.parametrize("dim", [16, 100, 320])
def test_forms_and_dimensions(form: str, dim: int, tmp_path: Path) -> None:
    """However vectors are kept and however wide they are, lists are made and searched."""
    with SqliteStore(tmp_path, form) as store:  # type: ignore[arg-type]
        fill(store, "a", 64, dim=dim)
        assert count_rows(store, "segments") > 0
        assert all(near(store, "a", number, dim) == PageKey("a", number) for number in (1, 30, 64))


def test_pages_of_another_model(store: SqliteStore) -> None:
    """Once all pages have given way to those of a wider model, their lists are made anew."""
    fill(store, "a", 64)
    store.delete("a")
    fill(store, "a", 70, dim=320)
    assert near(store, "a", 50, dim=320) == PageKey("a", 50)
    with store._database.reading() as connection:
        assert connection.execute("SELECT dim FROM centroids").fetchall() == [(320,)]
    assert min(map(min, listed(store).values())) > 64


def test_another_process_reads_them(store: SqliteStore, tmp_path: Path) -> None:
    """Lists that a process has made are those that another one searches, as it goes on."""
    with SqliteStore(tmp_path) as reader:
        for pages in (40, 100):
            fill(store, "a", pages)
            assert near(reader, "a", pages) == PageKey("a", pages)


@settings(deadline=None)
@given(st.sets(st.integers(0, 5000) | st.integers(0, 2**20 - 1), max_size=900))
def test_lists_as_they_are_stored(pages: set[int]) -> None:
    """Whatever pages a list has, it has them when it is read again."""
    ids = np.array(sorted(pages), np.uint32)
    found = segments.unpack_list(segments.pack_list(ids), 2**20)
    np.testing.assert_array_equal(found, ids)
    assert found.dtype == np.uint32


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 2000))
def test_damaged_lists_take_little_memory(packed: bytes, size: int) -> None:
    """Bytes that are no list are refused before they are believed, or are pages that can be."""
    with suppress(ValueError):
        found = segments.unpack_list(packed, size)
        assert len(found) <= len(packed)
        assert found.max(initial=0) < size


DAMAGE = {
    "cut": "UPDATE lists SET pages = substr(pages, 1, length(pages) - 3)",
    "foreign": "UPDATE lists SET pages = x'ffffff7f'",
    "text": "UPDATE lists SET pages = 'pages'",
    "cut centroids": "UPDATE centroids SET packed = substr(packed, 1, 1001)",
    "no numbers": "UPDATE centroids SET packed = replace(hex(packed), '3', 'f')",
    "no centroids": "UPDATE centroids SET packed = x''",
    "cells": "UPDATE centroids SET cells = 100000",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_lists(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged lists are noticed, said and made anew; searches find all pages meanwhile."""
    with SqliteStore(tmp_path) as store:
        fill(store, "a", 100)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute(DAMAGE[what])
    with SqliteStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        assert all(near(store, "a", number) == PageKey("a", number) for number in range(1, 101))
        [told] = [record.message for record in caplog.records]
        assert FILE in told
        assert "damaged" in told
        assert count_rows(store, "lists") == 0
        for _ in range(8):
            store.add([page("a", 1)])
        assert count_rows(store, "lists") > 0
        assert all(near(store, "a", number) == PageKey("a", number) for number in range(1, 101))
        assert len(caplog.records) == 1


def test_damage_that_a_writer_meets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pages can be added to a store with damaged lists, which are made anew by that."""
    with SqliteStore(tmp_path) as store:
        fill(store, "a", 60)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute(DAMAGE["no centroids"])
    with SqliteStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        fill(store, "b", 60)
        assert near(store, "b", 33) == PageKey("b", 33)
        assert any("damaged" in record.message for record in caplog.records)


def test_pages_that_wait_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store of an older version is searched as it is, and says once what makes it faster."""
    with SqliteStore(tmp_path) as store, monkeypatch.context() as patch:
        patch.setattr(segments, "SEGMENT", 1000)
        fill(store, "a", 100)
        patch.undo()
        with caplog.at_level(logging.WARNING):
            assert near(store, "a", 100) == PageKey("a", 100)
            assert near(store, "a", 1) == PageKey("a", 1)
        assert ["pagevec store index" in record.message for record in caplog.records] == [True]
        done = CliRunner().invoke(main, ["store", "index", str(tmp_path)])
        assert (done.exit_code, done.output) == (0, "indexed: 100 pages\n")
        assert count_rows(store, "segments") > 0
        again = CliRunner().invoke(main, ["store", "index", str(tmp_path), "--again"])
        assert again.output == done.output
        assert near(store, "a", 100) == PageKey("a", 100)


WRITER = """
from pagevec.stores import hamming
from pagevec.stores.sqlite import bits_file, segments
hamming.SCAN_FROM, segments.SEGMENT, segments._MERGED, bits_file.WORTH_IT = 32, 16, 3, 32
print("open", flush=True)
for number in range({first}, {last} + 1):
    store.add([page("{document}", number, text=f"{document} w{{number}} and words of many")])
    print(number, flush=True)
"""


def start_writer(folder: Path, document: str, first: int, last: int) -> "subprocess.Popen[str]":
    """Start a process that adds pages and prints the number of each once it is stored."""
    code = WRITER.format(document=document, first=first, last=last)
    return another_process(str(folder), code)


def with_text(document: str, number: int) -> Page:
    """Return a page as the writers make it."""
    return page(document, number, text=f"{document} w{number} and words of many")


def check_whole(folder: Path, undisturbed: SqliteStore, documents: dict[str, int]) -> None:
    """Compare a store with one that nobody disturbed."""
    with SqliteStore(folder) as store:
        assert store.documents() == documents
        with store._database.reading() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        check_lists(store)
        check_file(store)
        for document, pages in documents.items():
            for number in range(1, pages + 1, 7):
                assert near(store, document, number) == near(undisturbed, document, number)
                key, terms = PageKey(document, number), [document, f"w{number}"]
                found = store.find_words(terms, 2, [])
                assert found == undisturbed.find_words(terms, 2, [])
                assert key in found


@pytest.mark.long
def test_killed_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at 20 random moments, a store has all pages, their lists and their words."""
    monkeypatch.setattr(lists, "_FIRST", 1000)  # centroids depend on when they were trained
    chance, pages, stored = random.Random(1), 1000, 0  # noqa: S311 - repeatable, not secret
    for kill in range(20):
        writer = start_writer(tmp_path / "killed", "a", stored + 1, pages)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        for _ in range(chance.randrange(3, 15)):
            stored = int(writer.stdout.readline())
        time.sleep(0.02 * chance.random())
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with SqliteStore(tmp_path / "killed") as store:
            there = store.count()
        assert there >= stored, f"kill {kill}: acknowledged pages are there"
        stored = there
    assert stored < pages
    assert start_writer(tmp_path / "killed", "a", stored + 1, pages).communicate(timeout=300)
    with SqliteStore(tmp_path / "undisturbed") as undisturbed:
        for number in range(1, pages + 1):
            undisturbed.add([with_text("a", number)])
        check_whole(tmp_path / "killed", undisturbed, {"a": pages})


@pytest.mark.long
def test_two_writers_and_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that write at once make lists of all pages; who searches finds all pages."""
    monkeypatch.setattr(lists, "_FIRST", 1000)
    with SqliteStore(tmp_path / "shared") as reader, SqliteStore(tmp_path / "alone") as alone:
        writers = [start_writer(tmp_path / "shared", document, 1, 150) for document in "ab"]
        while any(writer.poll() is None for writer in writers):
            for document, there in reader.documents().items():
                if there > 32:  # fewer are all candidates, in the order of their keys
                    assert near(reader, document, there) == PageKey(document, there)
        for writer in writers:
            writer.communicate()
        assert [writer.returncode for writer in writers] == [0, 0]
        for document in "ab":
            alone.add([with_text(document, number) for number in range(1, 151)])
        check_whole(tmp_path / "shared", alone, {"a": 150, "b": 150})


def test_training_is_the_same_each_time() -> None:
    """Centroids of equal vectors are equal, also from bytes, and near what they stand for."""
    vectors = unit_vectors(3000, 3)
    one, other = Centroids.train(vectors), Centroids.train(vectors)
    np.testing.assert_array_equal(one.fine, other.fine)
    packed = Centroids.from_bytes(one.to_bytes(), one.dim, len(one.middles))
    np.testing.assert_allclose(packed.fine, one.fine, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(one.fine, axis=2), 1, atol=1e-3)
    assigned = one.assign(vectors)
    similar = one.similarities(vectors)
    chosen = similar[np.arange(len(vectors)), assigned]
    # Two levels miss the nearest one now and then, and then by little.
    assert np.mean(similar.max(axis=1) - chosen) < 0.02


def test_pages_without_vectors(store: SqliteStore) -> None:
    """Pages without vectors are no candidates, whether there are others or not."""
    nothing = np.empty((0, 128), np.float32)
    store.add([Page(PageKey("empty", number), nothing) for number in range(1, 60)])
    assert store.candidates(unit_vectors(3, 0), 5) == []
    fill(store, "a", 60)
    assert near(store, "a", 33) == PageKey("a", 33)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_few_vectors_have_few_centroids(count: int) -> None:
    """Centroids can be trained with as few vectors as there are."""
    vectors = np.repeat(unit_vectors(1, 0), count, axis=0)
    trained = Centroids.train(vectors)
    assert 1 <= len(trained) <= count
    np.testing.assert_allclose(
        trained.similarities(vectors)[0, trained.assign(vectors)[0]], 1, atol=1e-5
    )
