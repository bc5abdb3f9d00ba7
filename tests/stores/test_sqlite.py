"""What only the store in SQLite has: a choice of formats, and a file."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from contract import another_process

from pagevec.errors import StoreError
from pagevec.stores import hamming
from pagevec.stores.base import Filter
from pagevec.stores.codec import VectorFormat, pack, unpack
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import Page, PageKey
from vectors import page, unit_vectors


@pytest.mark.parametrize(
    ("form", "error"), [("float16", 2.0**-12), ("int8", 2.0**-8), ("binary", 1.0)]
)
@pytest.mark.parametrize("count", [0, 1, 700])
def test_formats(form: VectorFormat, error: float, count: int, tmp_path: Path) -> None:
    """Vectors come back as exact as the format can hold them; sign bits exactly."""
    vectors = unit_vectors(count, seed=1)
    with SqliteStore(tmp_path, form) as store:
        store.add([Page(PageKey("a", 1), vectors)])
        [found] = store.fetch([PageKey("a", 1)])
    np.testing.assert_allclose(found.vectors, vectors, atol=error)
    np.testing.assert_array_equal(found.vectors > 0, unpack(pack(vectors, form), 128, form) > 0)


def test_the_format_is_remembered(tmp_path: Path) -> None:
    """A store opens in its own format only, which need not be named."""
    SqliteStore(tmp_path, "int8").close()
    with pytest.raises(StoreError, match="int8, not float16"):
        SqliteStore(tmp_path, "float16")
    with SqliteStore(tmp_path) as store:
        store.add([page("a", 1)])
        assert len(store.fetch([PageKey("a", 1)])) == 1


def test_file_settings(tmp_path: Path) -> None:
    """The file is in WAL mode, and a commit is on disk before it returns."""
    store = SqliteStore(tmp_path)
    with store._database.writing() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    store.close()


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 9]
)
def test_a_foreign_file(content: bytes, tmp_path: Path) -> None:
    """Opening a file that is not a database raises an error that names it."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=FILE):
        SqliteStore(tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    """Reading a damaged part of the file raises an error; it never returns wrong pages."""
    store = SqliteStore(tmp_path)
    store.add([page("a", number) for number in range(1, 200)])
    store.close()
    content = bytearray((tmp_path / FILE).read_bytes())
    content[16384:] = b"\xa5" * (len(content) - 16384)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=FILE), SqliteStore(tmp_path) as damaged:
        damaged.fetch([PageKey("a", number) for number in range(1, 200)])


def test_a_newer_store(tmp_path: Path) -> None:
    """A store of a later version is refused and left as it is."""
    SqliteStore(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="99"):
        SqliteStore(tmp_path)


LATER = "DROP TABLE lists; DROP TABLE segments; DROP TABLE centroids"
"""What both of the older versions lack."""


@pytest.mark.parametrize(
    ("version", "dropped"), [(1, "DROP TABLE labels; DROP TABLE probe"), (2, "DROP TABLE labels")]
)
def test_an_older_store(version: int, dropped: str, tmp_path: Path) -> None:
    """A store of version 1 or 2 opens with its pages, and can do from then on what it could not."""
    dropped += "; ALTER TABLE documents DROP COLUMN version"
    dropped += "; DROP TABLE words; DROP TABLE condensing; DROP TABLE token_rows"
    dropped += "; DROP TABLE bits_file; DROP TABLE bits_parts"
    with SqliteStore(tmp_path) as store:
        store.add([page("a", 1)])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript(f"{dropped}; {LATER}; PRAGMA user_version = {version}")
    with SqliteStore(tmp_path) as store:
        assert (store.count(), store.fingerprint(), store.ledger.labels()) == (1, None, {})
        store.save_fingerprint(unit_vectors(3, 1))
        store.ledger.set_label("reports", "/srv/reports")
    with SqliteStore(tmp_path) as store:
        assert store.fingerprint() is not None
        assert store.ledger.labels() == {"reports": "/srv/reports"}


def test_the_path_is_a_file(tmp_path: Path) -> None:
    """A path at which there is a file is refused, by name."""
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="taken"):
        SqliteStore(tmp_path / "taken")


def test_opened_at_once(tmp_path: Path) -> None:
    """Processes that all find no store create one together."""
    name = str(tmp_path / "new")
    openers = [another_process(name, "store.add([page('a', 1)])") for _ in range(4)]
    for opener in openers:
        opener.communicate(timeout=60)
    assert [opener.returncode for opener in openers] == [0] * 4


def test_a_lease_that_was_taken_meanwhile_holds(tmp_path: Path) -> None:
    """Who asks for a lease and waits for a writer does not get what another one got meanwhile."""
    take = "INSERT INTO leases VALUES ('a', 'first', ?, 60)"
    with SqliteStore(tmp_path) as store, ThreadPoolExecutor(1) as thread:
        with store._database.writing() as connection:
            asked = thread.submit(store.ledger.lease, "a", "second", 60)
            time.sleep(0.2)
            assert not asked.done()
            connection.execute(take, [time.monotonic()])
        assert not asked.result(30)


def test_a_query_of_another_model(tmp_path: Path) -> None:
    """A query of another dimension is refused with a sentence, not by an error from numpy."""
    with SqliteStore(tmp_path) as store:
        store.add([page("a", 1)])
        with pytest.raises(StoreError, match="128 dimensions, these have 320"):
            store.candidates(unit_vectors(3, 0, dim=320), 10)


def test_few_or_filtered_pages_are_all_candidates(tmp_path: Path) -> None:
    """All of few or filtered pages are candidates; of many, the nearest by sign bits."""
    with SqliteStore(tmp_path, "binary") as store:
        store.add([page("a", number) for number in range(1, hamming.SCAN_FROM)])
        query = page("a", 77).vectors
        assert len(store.candidates(query, 10)) == hamming.SCAN_FROM - 1
        store.add([page("b", 1)])
        found = store.candidates(query, 10)
        assert (len(found), found[0]) == (10, PageKey("a", 77))
        only = Filter(documents=frozenset({"a"}))
        assert len(store.candidates(query, 10, only)) == hamming.SCAN_FROM - 1
