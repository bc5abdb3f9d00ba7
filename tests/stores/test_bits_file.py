"""The file of sign bits beside a large store: what a search reads in place of the database."""

import logging
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from contract import another_process, fill

from pagevec.errors import StoreError
from pagevec.stores import hamming
from pagevec.stores.sqlite import bits_file, segments
from pagevec.stores.sqlite.backup import back_up
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import PageKey
from vectors import page, unit_vectors

PAGES = 120


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozens of pages are a large store."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 32)
    monkeypatch.setattr(segments, "SEGMENT", 16)
    monkeypatch.setattr(bits_file, "WORTH_IT", 64)
    monkeypatch.setattr(bits_file, "_AT_ONCE", 40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "store") as opened:
        fill(opened, "a", PAGES)
        yield opened


def the_file(store: SqliteStore) -> Path:
    """Return the only file of bits that there is."""
    [file] = store._database.file.parent.glob("bits-*")
    return file


def search(store: SqliteStore, seed: int = 0) -> list[PageKey]:
    return store.candidates(unit_vectors(6, seed), 25)


def read_from_database(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Return a set that takes the ids of pages whose bits are read from the database."""
    read, original = set[int](), store._lists._read_bits

    def watched(connection: sqlite3.Connection, ids: "np.ndarray", dim: int) -> object:
        read.update(ids.tolist())
        return original(connection, ids, dim)

    monkeypatch.setattr(store._lists, "_read_bits", watched)
    return read


def waiting(store: SqliteStore) -> set[int]:
    with store._database.reading() as connection:
        rows = connection.execute(
            "SELECT id FROM pages WHERE revision > (SELECT revision FROM bits_file)"
        )
        return {id for (id,) in rows}


def test_a_search_reads_the_file(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only pages that were just added are read from the database; the same ones are found."""
    read = read_from_database(store, monkeypatch)
    found = [search(store, seed) for seed in range(5)]
    assert read == waiting(store)
    assert len(read) < 16
    with monkeypatch.context() as patch:
        patch.setattr(store._lists._bits, "find", lambda _connection, ids: ([], ids))
        assert [search(store, seed) for seed in range(5)] == found
    assert len(read) > PAGES / 2


def test_what_the_system_has_not_in_its_cache(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits that come from the disk are the same, also where they come in pieces."""
    found, read = search(store), read_from_database(store, monkeypatch)
    preadv = bits_file.os.preadv
    monkeypatch.setattr(bits_file, "_NO_WAIT", None)
    monkeypatch.setattr(
        bits_file.os, "preadv", lambda file, into, at: preadv(file, [into[0][:24]], at)
    )
    assert search(store) == found
    assert read == waiting(store)


def test_small_stores_have_none(tmp_path: Path) -> None:
    """A store has the file from some size on, and keeps it."""
    with SqliteStore(tmp_path) as store:
        fill(store, "a", 63)
        assert not list(tmp_path.glob("bits-*"))
        fill(store, "a", 60, first=64)
        file = the_file(store)
        assert file.stat().st_size > 0
        assert store.delete("a") == 123
        fill(store, "b", 20)
        assert search(store)
        assert the_file(store) == file


def test_a_store_of_before_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that were stored before there was a file come into it, some at a time."""
    monkeypatch.setattr(bits_file, "WORTH_IT", 1000)
    with SqliteStore(tmp_path) as store:
        fill(store, "a", PAGES)
        monkeypatch.setattr(bits_file, "WORTH_IT", 64)
        assert 40 <= store.index_pages() < PAGES
        assert len(waiting(store)) > 16
        found = [search(store, seed) for seed in range(5)]
        while store.index_pages():
            pass
        assert len(waiting(store)) < 16
        assert [search(store, seed) for seed in range(5)] == found


def test_changes(store: SqliteStore) -> None:
    """Pages that were replaced or removed are found as they are, not as they were."""
    store.add([page("a", 3, seed=9)])
    [key, *_] = store.candidates(page("a", 3, seed=9).vectors, 5)
    assert key == PageKey("a", 3)
    fill(store, "b", 40)
    assert store.candidates(page("a", 3, seed=9).vectors, 5)[0] == PageKey("a", 3)
    assert store.candidates(page("a", 100).vectors, 5)[0] == PageKey("a", 100)
    store.delete("a")
    assert {key.document for key in store.candidates(unit_vectors(4, 1), 200)} == {"b"}


def test_what_is_left_over_is_given_back(store: SqliteStore) -> None:
    """A file of which less than half is of pages that are there gives way to another one."""
    first, sizes = the_file(store), set[int]()
    for seed in range(1, 5):
        for number in range(1, PAGES + 1, 8):
            store.add([page("a", one, seed=seed) for one in range(number, number + 8)])
        while store.index_pages():
            pass
        sizes.add(the_file(store).stat().st_size)
        assert store.candidates(page("a", 50, seed=seed).vectors, 5)[0] == PageKey("a", 50)
    assert the_file(store) != first
    assert max(sizes) < 3.5 * PAGES * 5 * 16  # page() has up to five vectors


def _cut(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def _tear(file: Path) -> None:
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size // 3)
        stream.write(bytes(size // 3))


def _replace(file: Path) -> None:
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


def _swap(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[800:] + content[:800])


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "emptied": lambda file: file.write_bytes(b""),
    "torn": _tear,
    "foreign": _replace,
    "of other pages": _swap,
    "a folder": _make_folder,
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
def test_damage(
    what: str,
    when: str,
    store: SqliteStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that is not as it was written is noticed, said once, never trusted and made anew."""
    expected = [search(store, seed) for seed in range(6)]
    folder = store._database.file.parent
    if when == "before it is opened":
        store.close()
        store = SqliteStore(folder)
    file = the_file(store)
    if when == "while it is open" and what in ("a folder", "deleted"):
        DAMAGE[what](file)
        assert [search(store, seed) for seed in range(6)] == expected
        return  # the open file is as it was
    DAMAGE[what](file)
    with store, caplog.at_level(logging.INFO, "pagevec"):
        assert [search(store, seed) for seed in range(6)] == expected
        [said] = caplog.records
        assert str(file) in said.message
        assert (said.levelno == logging.WARNING) == (what != "deleted")
        fill(store, "a", PAGES, first=PAGES + 1)
        assert the_file_of(store) != file
        read = read_from_database(store, monkeypatch)
        found = [search(store, seed) for seed in range(6)]
        assert len(read) < 40
        monkeypatch.setattr(store._lists._bits, "find", lambda _connection, ids: ([], ids))
        assert found == [search(store, seed) for seed in range(6)]
        assert len(caplog.records) == 1


def the_file_of(store: SqliteStore) -> Path:
    """Return the file that the database names."""
    with store._database.reading() as connection:
        [(name,)] = connection.execute("SELECT name FROM bits_file")
    return store._database.file.with_name(name)


@pytest.mark.parametrize("no_wait", [True, False])
@pytest.mark.parametrize("values", ["start = -40", "start = 1 << 50", "size = 0", "size = 1 << 50"])
def test_damaged_parts(
    values: str, no_wait: bool, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a part begins and ends may be damaged, too: its pages are found all the same."""
    if not no_wait:
        monkeypatch.setattr(bits_file, "_NO_WAIT", None)
    expected = search(store)
    folder = store._database.file.parent
    store.close()
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute(f"UPDATE bits_parts SET {values} WHERE part = 1")  # noqa: S608
    with SqliteStore(folder) as again:
        assert search(again) == expected


@pytest.mark.parametrize(
    "places",
    [
        "x'00'",
        "'text'",
        "x'0102'",
        "zeroblob(16)",
        "x'ffffffff010000000000000000000000'",  # a page that cannot be
        "x'01000000ffffffff0000000000000000'",  # more vectors than it has bytes
        "x''",
    ],
)
def test_damaged_places(places: str, store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """Where pages are may be damaged in the database: no other bits are taken for theirs."""
    expected = search(store)
    folder = store._database.file.parent
    store.close()
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute(f"UPDATE bits_parts SET places = {places} WHERE part = 2")  # noqa: S608
    with SqliteStore(folder) as again:
        assert search(again) == expected


def test_a_backup_has_none(
    store: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The copy is searched without the file, no warning is given, and it makes one of its own."""
    expected = search(store)
    back_up(store._database.file.parent, tmp_path / "copy")
    with SqliteStore(tmp_path / "copy") as copy, caplog.at_level(logging.WARNING):
        assert search(copy) == expected
        fill(copy, "a", 40, first=PAGES + 1)
        assert the_file(copy).exists()
        assert not caplog.records


def test_a_copied_folder(store: SqliteStore, tmp_path: Path) -> None:
    """A folder that was copied is a store with a file of its own."""
    folder = store._database.file.parent
    expected = search(store)
    store.close()
    shutil.copytree(folder, tmp_path / "copy")
    with SqliteStore(tmp_path / "copy") as copy, SqliteStore(folder) as first:
        fill(copy, "b", 40)
        assert search(first) == expected
        assert copy.candidates(page("b", 5).vectors, 5)[0] == PageKey("b", 5)


def test_who_may_read_it(tmp_path: Path) -> None:
    """The file is as secret as the database."""
    with SqliteStore(tmp_path) as store:
        store._database.file.chmod(0o600)
        fill(store, "a", PAGES)
        assert stat.S_IMODE(the_file(store).stat().st_mode) == 0o600


def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pages are stored and found where there is no room for the file, which comes later."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with SqliteStore(tmp_path) as store:
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(bits_file.os, "fsync", fail)
            fill(store, "a", PAGES)
            assert "No space left on device" in caplog.text
            assert store.candidates(page("a", 77).vectors, 5)[0] == PageKey("a", 77)
            with pytest.raises(StoreError, match=r"bits-.*No space left"):
                store.index_pages()
        while store.index_pages():
            pass
        assert the_file(store).stat().st_size > 0
        assert store.candidates(page("a", 77).vectors, 5)[0] == PageKey("a", 77)


def test_another_process_makes_it_anew(store: SqliteStore) -> None:
    """A process that has the former file open goes on with the new one."""
    search(store)
    _tear(the_file(store))
    code = f"""
from pagevec.stores import hamming
from pagevec.stores.sqlite import bits_file, segments
from vectors import page, unit_vectors
hamming.SCAN_FROM, segments.SEGMENT, bits_file.WORTH_IT = 32, 16, 64
store.candidates(unit_vectors(6, 0), 25)
for number in range({PAGES} + 1, {PAGES} + 80):
    store.add([page("a", number)])
"""
    other = another_process(str(store._database.file.parent), code)
    other.communicate(timeout=60)
    assert other.returncode == 0
    assert store.candidates(page("a", PAGES + 33).vectors, 5)[0] == PageKey("a", PAGES + 33)
    assert store._lists._bits._open is not None
    assert store._lists._bits._open.name == the_file(store).name
