"""Stores that pagevec 0.1 made: they open, work, and can be renamed to names of today."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import pytest

from pagevec.errors import OtherModel
from pagevec.grid import PatchGrid
from pagevec.stores import hamming, open_store
from pagevec.stores.base import Filter, Store
from pagevec.stores.fingerprint import agree_on_model
from pagevec.types import DocumentRecord, Page, PageKey
from vectors import page, unit_vectors

FORMER = Path(__file__).parents[1] / "former"
ROOT = "/srv/archive/"
NAMES = [f"{ROOT}reports/{name}" for name in ("2024/winter.png", "notes.txt", "receipt.png")]
VECTORS = {"winter.png": 82, "notes.txt": 63, "receipt.png": 82}


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A copy of the store in SQLite, or of the one in PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(FORMER / "pages.sqlite3", tmp_path)
        name = str(tmp_path)
    else:
        name = request.getfixturevalue("database")
        with psycopg.connect(name) as connection:
            connection.execute((FORMER / "postgres.sql").read_bytes())
    with open_store(name) as store:
        yield store


def pages_of(store: Store, names: list[str]) -> list[Page]:
    return store.fetch([PageKey(name, 1) for name in names])


def check_pages(pages: list[Page], names: list[str]) -> None:
    """Check everything that is known of the three pages but the values of their vectors."""
    assert [page.key for page in pages] == [PageKey(name, 1) for name in names]
    for found in pages:
        file = Path(found.key.document).name
        is_text = file == "notes.txt"
        assert found.metadata == {"file": file, "type": "text" if is_text else "image"}
        assert found.vectors.shape == (VECTORS[file], 128)
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-3)
        assert (found.text or "").startswith("The ferry" if is_text else "")
        assert (found.thumbnail is None) == is_text
        assert found.grid == (None if is_text else PatchGrid(5, 15, 3))


def check_search(store: Store, pages: list[Page], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that each page is found by its own vectors, with and without sign bits."""
    keys = [page.key for page in pages]
    for scan_from in (hamming.SCAN_FROM, 0):
        monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
        for one in pages:
            found = store.candidates(one.vectors, 3)
            assert set(found) == set(keys)
            assert scan_from or found[0] == one.key
            only = Filter(frozenset({one.key.document}), {"file": one.metadata["file"]})
            assert store.candidates(one.vectors, 3, only) == [one.key]


def test_a_store_of_0_1_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages, ledger and fingerprint are there, it is searched, and takes new pages."""
    assert store.count() == 3
    pages = pages_of(store, NAMES)
    check_pages(pages, NAMES)
    check_search(store, pages, monkeypatch)
    records = store.ledger.records()
    assert [record.name for record in records] == NAMES
    assert all(
        record == DocumentRecord(record.name, record.content_hash, 1, True) for record in records
    )
    assert {len(record.content_hash) for record in records} == {64}
    fingerprint = store.fingerprint()
    assert fingerprint is not None and fingerprint.shape == (41, 128)
    assert store.ledger.labels() == {}
    store.add([page("reports/new.png", 1)])
    assert store.ledger.lease("reports/new.png", "worker", 60)
    assert (store.count(), store.delete(NAMES[0]), store.count()) == (4, 1, 3)


def test_a_store_of_0_1_keeps_another_dimension_away(store: Store) -> None:
    """A model of another dimension is refused by name of both, and changes nothing."""
    before, fingerprint = pages_of(store, NAMES), store.fingerprint()
    wide = unit_vectors(41, 1, dim=2560)
    for refused in (
        partial(agree_on_model, store, wide),
        partial(store.add, [Page(PageKey(NAMES[0], 1), wide)]),
        partial(store.candidates, wide, 3),
    ):
        with pytest.raises(OtherModel, match="128 dimensions, these have 2560: use the model that"):
            refused()
    after = pages_of(store, NAMES)
    check_pages(after, NAMES)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.vectors, old.vectors)
    np.testing.assert_array_equal(store.fingerprint(), fingerprint)


def test_a_store_of_0_1_is_renamed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute names become names below a label; pages and records follow, unchanged."""
    before, records = pages_of(store, NAMES), store.ledger.records()
    names = {name: name.removeprefix(ROOT) for name in NAMES}
    store.ledger.set_label("reports", f"{ROOT}reports")
    store.rename(names)
    assert store.ledger.labels() == {"reports": f"{ROOT}reports"}
    assert pages_of(store, NAMES) == []
    after = pages_of(store, list(names.values()))
    check_pages(after, list(names.values()))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.vectors, old.vectors)
        assert (new.thumbnail, new.text) == (old.thumbnail, old.text)
    check_search(store, after, monkeypatch)
    assert [(record.name, record.content_hash) for record in store.ledger.records()] == [
        (names[record.name], record.content_hash) for record in records
    ]
    assert store.count() == 3
