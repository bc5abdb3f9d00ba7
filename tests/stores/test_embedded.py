"""The embedded store's own affairs: its sign bits, its formats, its file."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from contract import another_process
from hypothesis import given, settings
from hypothesis import strategies as st

from pagevec.errors import StoreError
from pagevec.stores import hamming as bits
from pagevec.stores.base import Filter
from pagevec.stores.codec import Format, pack, unpack
from pagevec.stores.hamming import BitIndex, PackedBits
from pagevec.stores.sqlite import store as embedded
from pagevec.stores.sqlite.store import FILE, EmbeddedStore
from pagevec.types import Page, PageKey
from vectors import page, unit_vectors


def distance(query: PackedBits, rows: PackedBits) -> int:
    """Return the distance of one page, computed pair by pair."""
    pairs = np.unpackbits(query[:, None] ^ rows[None], axis=-1).sum(axis=-1)
    return int(pairs.min(axis=1).sum())


# Few different bits, so that distances are often equal; pages 0 to 9, so that many are replaced.
steps = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), st.integers(0, 9), st.integers(0, 4)),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(steps=steps, dim=st.sampled_from([8, 64, 128, 320]), limit=st.integers(0, 12))
def test_bits_are_those_of_brute_force(
    steps: list[tuple[str, int, int]], dim: int, limit: int
) -> None:
    """After any changes the best are the pages that a loop over all pairs finds."""
    random = np.random.default_rng(0)
    index, pages = BitIndex(dim), dict[int, PackedBits]()
    for what, number, count in steps:
        if what == "put":
            pages[number] = random.integers(0, 256, (count, dim // 8), dtype=np.uint8)
            index.put([number], [pages[number]])
        else:
            pages.pop(number, None)
            index.remove([number])
    query = random.integers(0, 256, (3, dim // 8), dtype=np.uint8)
    expected = {number: distance(query, rows) for number, rows in pages.items() if len(rows)}
    found = index.best(query, limit)
    assert len(index) == len(expected)
    assert len(set(found)) == len(found) == min(limit, len(expected))
    assert [expected[number] for number in found] == sorted(expected.values())[:limit]


def test_holes_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages replaced again and again do not fill the memory, and stay right; blocks too."""
    monkeypatch.setattr(bits, "_FEW_ROWS", 16)
    monkeypatch.setattr(bits, "BLOCK", 4)
    random, index, pages = np.random.default_rng(0), BitIndex(128), dict[int, PackedBits]()
    for turn in range(200):
        changed = {
            int(number): random.integers(0, 256, (1 + turn % 5, 16), dtype=np.uint8)
            for number in random.choice(30, 5, replace=False)
        }
        index.put(list(changed), list(changed.values()))
        pages |= changed
    assert index._planes.shape[1] < 1000
    query = random.integers(0, 256, (3, 16), dtype=np.uint8)
    expected = sorted(distance(query, rows) for rows in pages.values())
    assert [distance(query, pages[number]) for number in index.best(query, 30)] == expected


def test_every_half_is_read() -> None:
    """The quick way from float16 to float32 is exact for every finite number."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    read = unpack(finite.tobytes(), 8, "float16")
    np.testing.assert_array_equal(read, finite.astype(np.float32).reshape(-1, 8))


@pytest.mark.parametrize(
    ("form", "error"), [("float16", 2.0**-12), ("int8", 2.0**-8), ("binary", 1.0)]
)
@pytest.mark.parametrize("count", [0, 1, 700])
def test_formats(form: Format, error: float, count: int, tmp_path: Path) -> None:
    """Vectors come back as exactly as the format can hold them; of bits, their signs."""
    vectors = unit_vectors(count, seed=1)
    with closing(EmbeddedStore(tmp_path, form)) as store:
        store.add([Page(PageKey("a", 1), vectors)])
        [found] = store.fetch([PageKey("a", 1)])
    np.testing.assert_allclose(found.vectors, vectors, atol=error)
    np.testing.assert_array_equal(found.vectors > 0, unpack(pack(vectors, form), 128, form) > 0)


def test_the_format_is_remembered(tmp_path: Path) -> None:
    """A store is opened in its own format, or not at all."""
    EmbeddedStore(tmp_path, "int8").close()
    with pytest.raises(StoreError, match="int8, not float16"):
        EmbeddedStore(tmp_path, "float16")
    with closing(EmbeddedStore(tmp_path)) as store:
        store.add([page("a", 1)])
        assert len(store.fetch([PageKey("a", 1)])) == 1


def test_file_settings(tmp_path: Path) -> None:
    """The file is in WAL mode, and a commit is on the disk before it returns."""
    store = EmbeddedStore(tmp_path)
    with store._database.writing() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    store.close()


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 9]
)
def test_a_foreign_file(content: bytes, tmp_path: Path) -> None:
    """A file that is no database gives an error that names it."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=FILE):
        EmbeddedStore(tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file whose middle is overwritten gives an error where that is met, never wrong pages."""
    store = EmbeddedStore(tmp_path)
    store.add([page("a", number) for number in range(1, 200)])
    store.close()
    content = bytearray((tmp_path / FILE).read_bytes())
    content[16384:] = b"\xa5" * (len(content) - 16384)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=FILE), closing(EmbeddedStore(tmp_path)) as damaged:
        damaged.fetch([PageKey("a", number) for number in range(1, 200)])


def test_a_newer_store(tmp_path: Path) -> None:
    """A store of a later version is left alone."""
    EmbeddedStore(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="99"):
        EmbeddedStore(tmp_path)


def test_an_older_store(tmp_path: Path) -> None:
    """A store of version 1, which knows no probe, opens with its pages and keeps one from then."""
    with closing(EmbeddedStore(tmp_path)) as store:
        store.add([page("a", 1)])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript("DROP TABLE probe; PRAGMA user_version = 1")
    with closing(EmbeddedStore(tmp_path)) as store:
        assert (store.count(), store.probe()) == (1, None)
        store.keep_probe(unit_vectors(3, 1))
    with closing(EmbeddedStore(tmp_path)) as store:
        assert store.probe() is not None


def test_the_path_is_a_file(tmp_path: Path) -> None:
    """Where a file stands no store can be made."""
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="taken"):
        EmbeddedStore(tmp_path / "taken")


def test_opened_at_once(tmp_path: Path) -> None:
    """Processes that find no store make one together."""
    name = str(tmp_path / "new")
    openers = [another_process(name, "store.add([page('a', 1)])") for _ in range(4)]
    for opener in openers:
        opener.communicate(timeout=60)
    assert [opener.returncode for opener in openers] == [0] * 4


def test_a_query_of_another_model(tmp_path: Path) -> None:
    """A query of another dimension is refused in a sentence, not deep in numpy."""
    with closing(EmbeddedStore(tmp_path)) as store:
        store.add([page("a", 1)])
        with pytest.raises(StoreError, match="128 dimensions, these have 320"):
            store.candidates(unit_vectors(3, 0, dim=320), 10)


def test_few_or_filtered_pages_are_all_candidates(tmp_path: Path) -> None:
    """Below the bound every page is scored exactly; from there on, the nearest by sign bits."""
    with closing(EmbeddedStore(tmp_path, "binary")) as store:
        store.add([page("a", number) for number in range(1, embedded.SCAN_FROM)])
        query = page("a", 77).vectors
        assert len(store.candidates(query, 10)) == embedded.SCAN_FROM - 1
        store.add([page("b", 1)])
        found = store.candidates(query, 10)
        assert (len(found), found[0]) == (10, PageKey("a", 77))
        only = Filter(documents=frozenset({"a"}))
        assert len(store.candidates(query, 10, only)) == embedded.SCAN_FROM - 1
