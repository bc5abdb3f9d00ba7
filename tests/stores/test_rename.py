"""Renaming documents, in every store."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from contract import elsewhere

from conftest import new_store_name
from pagevec.errors import StoreError
from pagevec.grid import PatchGrid
from pagevec.stores import hamming
from pagevec.stores.base import Filter, Store
from pagevec.types import DocumentRecord, PageKey
from vectors import page

# Where a rename copies pages; tests/stores/test_qdrant.py has quicker ones.
QDRANT = [
    pytest.param(kind, marks=pytest.mark.long) for kind in ("qdrant-embedded", "qdrant-server")
]


@pytest.fixture(params=["sqlite", "postgres", *QDRANT])
def store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store, of every kind."""
    return new_store_name(request, tmp_path)


@pytest.fixture
def scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few pages are searched by their sign bits."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)


def ingest(store: Store, *names: str, pages: int = 3) -> None:
    """Add documents of `pages` pages, each with its ledger record."""
    for name in names:
        store.add([page(name, number) for number in range(1, pages + 1)])
        store.ledger.write(DocumentRecord(name, f"hash of {name}", pages, complete=True))


@pytest.mark.usefixtures("scanning")
def test_rename(store: Store) -> None:
    """A renamed document keeps everything else: pages, with all their fields, and its record."""
    fields = {"metadata": {"year": 2024}, "text": "Grüße", "thumbnail": b"\xff\xd8"}
    moved = page("/srv/a.pdf", 2, grid=PatchGrid(rows=1, columns=2, first=1), **fields)
    store.add([page("/srv/a.pdf", 1), moved, page("b.pdf", 1)])
    store.ledger.write(DocumentRecord("/srv/a.pdf", "00", 2, complete=True, error="once"))
    before = store.fetch([moved.key])[0].vectors
    store.candidates(moved.vectors, 3)  # so that the old name is in memory
    store.rename({"/srv/a.pdf": "reports/a.pdf"})
    assert (store.has("/srv/a.pdf"), store.ledger.record("/srv/a.pdf")) == (frozenset(), None)
    assert store.fetch([moved.key]) == []
    assert store.has("reports/a.pdf") == {1, 2}
    assert store.ledger.records() == [
        DocumentRecord("reports/a.pdf", "00", 2, complete=True, error="once")
    ]
    key = PageKey("reports/a.pdf", 2)
    [found] = store.fetch([key])
    assert (found.key, found.grid) == (key, moved.grid)
    assert {name: getattr(found, name) for name in fields} == fields
    np.testing.assert_array_equal(found.vectors, before)
    assert store.candidates(moved.vectors, 1) == [key]
    only = Filter(documents=frozenset({"reports/a.pdf"}), metadata={"year": 2024})
    assert store.candidates(moved.vectors, 5, only) == [key]
    assert (store.count(), store.has("b.pdf")) == (3, {1})


def test_a_renamed_document_is_like_any_other(store: Store) -> None:
    """Its pages can be replaced and deleted, it can be renamed again, and its old name is free."""
    ingest(store, "a")
    store.rename({"a": "b"})
    store.add([page("b", 1, seed=1, text="new")])
    assert (store.count(), store.fetch([PageKey("b", 1)])[0].text) == (3, "new")
    ingest(store, "a", pages=1)
    store.rename({"b": "c"})
    store.rename({"a": "b"})
    assert [record.name for record in store.ledger.records()] == ["b", "c"]
    assert (store.delete("c"), store.count(), store.has("b")) == (3, 1, {1})


def test_rename_many(store: Store) -> None:
    """Many documents are renamed in one call, and the others stay."""
    names = {f"/srv/reports/{number}.pdf": f"reports/{number}.pdf" for number in range(40)}
    ingest(store, *names, "other", pages=2)
    store.rename(names)
    assert {record.name for record in store.ledger.records()} == {*names.values(), "other"}
    assert all(store.has(new) == {1, 2} for new in names.values())
    assert not any(store.has(old) for old in names)
    assert store.count() == 82
    store.rename({})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": "x", "missing": "y"}, "'missing': no such document"),
        ({"a": "x", "without record": "y"}, "'without record': no such document"),
        ({"a": "x", "b": "c"}, "'b' to 'c': the name is taken"),
        ({"a": "x", "b": "without record"}, "'b' to 'without record': the name is taken"),
        ({"a": "x", "b": "without pages"}, "'b' to 'without pages': the name is taken"),
        ({"a": "x", "b": "x"}, "'b' to 'x': the name is taken"),
        ({"a": "b", "b": "x"}, "'a' to 'b': the name is taken"),
        ({"a": "a"}, "'a' to 'a': the name is taken"),
    ],
)
def test_a_refused_rename_changes_nothing(
    store: Store, names: dict[str, str], message: str
) -> None:
    """An unknown old name or a taken new name is named in the error, and nothing is renamed."""
    ingest(store, "a", "b", "c")
    store.add([page("without record", 1)])
    store.ledger.write(DocumentRecord("without pages", "00"))
    records = store.ledger.records()
    with pytest.raises(StoreError, match=message):
        store.rename(names)
    assert (store.ledger.records(), store.count()) == (records, 10)
    assert [len(store.has(name)) for name in ("a", "b", "c", "without record")] == [3, 3, 3, 1]


@pytest.mark.usefixtures("scanning")
def test_renames_elsewhere_are_seen(store: Store, store_name: str) -> None:
    """The next query has the names that another process gave."""
    ingest(store, "a", "b")
    query = page("a", 2).vectors
    assert store.candidates(query, 1) == [PageKey("a", 2)]
    elsewhere(store_name, 'store.rename({"a": "c"})')
    found = store.candidates(query, 6)
    assert found[0] == PageKey("c", 2)
    assert {key.document for key in found} == {"b", "c"}


@pytest.mark.usefixtures("scanning")
def test_rename_while_reading(store: Store) -> None:
    """A search beside renames finds each page once, and both documents under old or new names."""
    ingest(store, "a/1", "a/2", pages=20)
    query, there = page("a/1", 7).vectors, {"a/1": "b/1", "a/2": "b/2"}
    back = {new: old for old, new in there.items()}
    with ThreadPoolExecutor(1) as pool:
        renaming = pool.submit(lambda: [store.rename(names) for names in [there, back] * 20])
        searches = 0
        while not renaming.done() or not searches:
            found = store.candidates(query, 100)
            assert (len(found), len(set(found))) == (40, 40)
            assert {key.document for key in found} in ({"a/1", "a/2"}, {"b/1", "b/2"})
            assert all(found.vectors.shape[1] == 128 for found in store.fetch(found[:5]))
            searches += 1
        renaming.result()
