"""What every store does, whichever it is and whatever the dimension of its vectors."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from contract import ADD_FOR_EVER, another_process, elsewhere, need_processes

import vectors
from conftest import new_store_name
from pagevec.errors import OtherModel, StoreError
from pagevec.grid import PatchGrid
from pagevec.stores import hamming, open_store
from pagevec.stores.base import Filter, Store
from pagevec.stores.fingerprint import agree_on_model, check_model
from pagevec.types import DocumentRecord, Page, PageKey
from vectors import page, unit_vectors

both_tables = pytest.mark.parametrize("dim", [128, 100], indirect=True)
"""PostgreSQL keeps pages of 128 dimensions in another table than all others."""


@pytest.fixture(autouse=True)
def dim(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Components of all vectors of a test."""
    chosen = int(getattr(request, "param", vectors.DIM))
    monkeypatch.setattr(vectors, "DIM", chosen)
    return chosen


@pytest.fixture(params=["sqlite", "postgres", "qdrant-embedded", "qdrant-server"])
def store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store, of every kind."""
    return new_store_name(request, tmp_path)


@pytest.fixture
def scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few pages are searched by their sign bits."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)


def numbers(keys: list[PageKey]) -> list[int]:
    return [key.number for key in keys]


@both_tables
def test_a_page_comes_back(store: Store) -> None:
    """All fields of a page are kept; the vectors to the precision of the store's format."""
    grid = PatchGrid(rows=1, columns=2, first=1)
    fields = {"metadata": {"year": 2024, "tags": ["a"]}, "text": "Grüße", "thumbnail": b"\xff\xd8"}
    stored = page("report.pdf", 3, grid=grid, **fields)
    store.add([stored])
    [found] = store.fetch([stored.key])
    assert (found.key, found.grid) == (stored.key, grid)
    assert {name: getattr(found, name) for name in fields} == fields
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors > 0, stored.vectors > 0)


@both_tables
def test_what_a_search_fetches(store: Store) -> None:
    """A search gets the same vectors, grids and metadata, in the order that it asks for."""
    grid = PatchGrid(rows=1, columns=2, first=1)
    fields = {"metadata": {"year": 2024}, "text": "Grüße", "thumbnail": b"\xff\xd8"}
    store.add([page("a", number, grid=grid, **fields) for number in (1, 2)] + [page("a", 3)])
    keys = [PageKey("a", number) for number in (3, 9, 1, 2)]
    whole, bare = store.fetch(keys), list(store.fetch_vectors(keys))
    assert [one.key.number for one in bare] == [3, 1, 2]
    for one, other in zip(whole, bare, strict=True):
        assert (one.key, one.metadata, one.grid) == (other.key, other.metadata, other.grid)
        np.testing.assert_array_equal(one.vectors, other.vectors)
    assert all(one.text in (other.text, None) for one, other in zip(bare, whole, strict=True))


@both_tables
def test_a_bare_page_comes_back(store: Store) -> None:
    """A page without text, thumbnail, grid and metadata stays so."""
    store.add([page("bare", 1)])
    [found] = store.fetch([PageKey("bare", 1)])
    assert (found.text, found.thumbnail, found.grid, dict(found.metadata)) == (None, None, None, {})


@both_tables
def test_the_fingerprint_of_the_pages_stays(store: Store) -> None:
    """A saved fingerprint is replaced only once the store has no pages."""
    first, second = unit_vectors(7, 1), unit_vectors(9, 2)
    assert store.fingerprint() is None
    store.save_fingerprint(first)
    store.add([page("a", 1)])
    store.save_fingerprint(second)
    np.testing.assert_allclose(store.fingerprint(), first, atol=1e-3)
    store.delete("a")
    store.save_fingerprint(second)
    np.testing.assert_allclose(store.fingerprint(), second, atol=1e-3)


@both_tables
def test_another_models_pages_are_refused(store: Store) -> None:
    """A model in another precision is the same model; another model is not, of any shape."""
    made = unit_vectors(30, 1)
    store.add([page("a", 1)])
    check_model(store, unit_vectors(30, 2))  # no fingerprint yet
    agree_on_model(store, made)
    agree_on_model(store, made.astype(np.float16).astype(np.float32))
    for other in (unit_vectors(30, 2), made[:-1], made[::-1]):
        with pytest.raises(StoreError, match="another model"):
            agree_on_model(store, other)
    check_model(store, made)


@both_tables
def test_fetch_keeps_the_order(store: Store) -> None:
    """Pages come in the order of the keys; a page that is not there is left out."""
    store.add([page("a", number) for number in (1, 2, 3)])
    wanted = [PageKey("a", 3), PageKey("a", 9), PageKey("b", 1), PageKey("a", 1)]
    assert [found.key.number for found in store.fetch(wanted)] == [3, 1]
    assert store.fetch([]) == []


@both_tables
def test_a_page_is_replaced(store: Store) -> None:
    """A second page with the same key replaces the first, also within one call."""
    store.add([page("a", 1, text="first")])
    store.add([page("a", 1, seed=1, text="second"), page("a", 1, seed=2, text="third")])
    [found] = store.fetch([PageKey("a", 1)])
    assert (store.count(), found.text) == (1, "third")
    np.testing.assert_array_equal(found.vectors > 0, page("a", 1, seed=2).vectors > 0)


@both_tables
def test_has_and_delete(store: Store) -> None:
    """Deleting a document removes its pages and its record, and nothing else."""
    store.add([page("a", 1), page("a", 7), page("b", 1)])
    store.ledger.write(DocumentRecord("a", "00"))
    assert (store.has("a"), store.has("c")) == ({1, 7}, frozenset())
    assert (store.delete("a"), store.delete("a"), store.count()) == (2, 0, 1)
    assert (store.has("a"), store.has("b")) == (frozenset(), {1})
    assert store.ledger.record("a") is None


@both_tables
def test_nothing_is_added(store: Store) -> None:
    """Adding an empty list works, and so does searching an empty store."""
    store.add([])
    assert store.count() == 0
    assert store.candidates(unit_vectors(4, 0), 10) == []


@both_tables
def test_all_or_none(store: Store) -> None:
    """If one page of a call cannot be stored, none of them is."""
    wrong = page("a", 2, metadata={"not": float("nan")})
    with pytest.raises((StoreError, ValueError)):
        store.add([page("a", 1), wrong])
    assert store.count() == 0


FILTERS = [
    (Filter(documents=frozenset({"a"})), {("a", 1), ("a", 2)}),
    (Filter(documents=frozenset({"a", "b"})), {("a", 1), ("a", 2), ("b", 1)}),
    (Filter(documents=frozenset({"none"})), set()),
    (Filter(metadata={"year": 2024}), {("a", 1), ("c", 1)}),
    (Filter(metadata={"year": "2024"}), {("b", 1)}),
    (Filter(metadata={"year": 2024, "of'\"ice": "Köln"}), {("c", 1)}),
    (Filter(metadata={"draft": True}), {("a", 2)}),
    (Filter(metadata={"nothing": 1}), set()),
    (Filter(frozenset({"a"}), {"year": 2024}), {("a", 1)}),
]


@both_tables
def test_filters(store: Store) -> None:
    """Documents and metadata narrow the candidates; a number does not equal its digits."""
    store.add(
        [
            page("a", 1, metadata={"year": 2024, "draft": False}),
            page("a", 2, metadata={"year": 2023, "draft": True}),
            page("b", 1, metadata={"year": "2024"}),
            page("c", 1, metadata={"year": 2024, "of'\"ice": "Köln"}),
        ]
    )
    for where, expected in FILTERS:
        found = store.candidates(unit_vectors(4, 0), 10, where)
        assert {(key.document, key.number) for key in found} == expected, where


@both_tables
def test_names_of_metadata(store: Store) -> None:
    """A store knows which names its pages' metadata has, whatever their values are."""
    assert store.metadata_names() == frozenset()
    store.add([page("a", 1, metadata={"n": 1, "gone": None}), page("a", 2), page("b", 1)])
    store.add([page("b", 1, metadata={"n": "x", "flag": False})])
    assert store.metadata_names() == {"n", "gone", "flag"}
    store.delete("a")
    assert store.metadata_names() == {"n", "flag"}


@both_tables
@pytest.mark.usefixtures("scanning")
def test_the_nearest_come_first(store: Store) -> None:
    """By sign bits a page is nearest to its own vectors, and no more than `limit` come."""
    pages = [page("a", number) for number in range(1, 51)]
    store.add(pages)
    for wanted in pages[::10]:
        found = store.candidates(wanted.vectors, 5)
        assert (len(found), found[0]) == (5, wanted.key)


@both_tables
@pytest.mark.usefixtures("scanning")
def test_changes_elsewhere_are_seen(store: Store, store_name: str) -> None:
    """The next query sees what another process added, replaced and deleted."""
    store.add([page("a", number) for number in range(1, 9)] + [page("b", 1)])
    query = page("a", 4, seed=1).vectors
    assert len(store.candidates(query, 20)) == 9
    elsewhere(store_name, 'store.add([page("a", 4, seed=1), page("c", 1)]); store.delete("b")')
    found = store.candidates(query, 20)
    assert found[0] == PageKey("a", 4)
    assert set(found) == {PageKey("a", number) for number in range(1, 9)} | {PageKey("c", 1)}
    elsewhere(store_name, 'store.delete("a"); store.add([page("b", 1)])')
    assert set(store.candidates(query, 20)) == {PageKey("b", 1), PageKey("c", 1)}


@both_tables
def test_two_processes_add_the_same(store: Store, store_name: str) -> None:
    """Each page is there once when two processes add the same pages at once."""
    need_processes(store_name)
    code = 'for first in range(0, 60, 5): store.add([page("a", first + k) for k in range(5)])'
    writers = [another_process(store_name, code) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for writer in writers:
        writer.communicate()
    assert (store.count(), store.has("a")) == (60, frozenset(range(60)))
    assert len(store.fetch([PageKey("a", number) for number in range(60)])) == 60


def test_killed_while_adding(store_name: str) -> None:
    """Pages whose `add` returned survive SIGKILL, and the store still works."""
    writer = another_process(store_name, ADD_FOR_EVER)
    assert writer.stdout is not None
    stored = [int(writer.stdout.readline()) for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    stored += [int(line) for line in writer.communicate()[0].splitlines() if line]
    with open_store(store_name) as store:
        assert store.has("endless") >= set(stored)
        store.add([page("endless", 1)])
        assert len(store.fetch([PageKey("endless", number) for number in stored])) == len(stored)


@both_tables
def test_opened_again(store: Store, store_name: str) -> None:
    """Pages and records are there when the store is opened again."""
    store.add([page("a", 1)])
    store.ledger.write(DocumentRecord("a", "00", 1, complete=True))
    with open_store(store_name) as again:
        assert again.count() == 1
        assert again.ledger.record("a") == DocumentRecord("a", "00", 1, complete=True)


def test_records(store: Store) -> None:
    """A record replaces the one of the same name; all records come sorted by name."""
    failed = DocumentRecord("b", "11", None, error="it is encrypted")
    store.ledger.write(failed)
    store.ledger.write(DocumentRecord("a", "00"))
    known = DocumentRecord("a", "22", 3, complete=True, version="an ETag 42")
    store.ledger.write(known)
    assert store.ledger.record("a") == known
    assert store.ledger.records() == [known, failed]
    assert store.ledger.record("none") is None


def test_leases(store: Store) -> None:
    """Only the worker that holds a lease can renew or release it."""
    assert store.ledger.lease("a", "first", 60)
    assert store.ledger.lease("a", "first", 60)
    assert not store.ledger.lease("a", "second", 60)
    store.ledger.release("a", "second")
    assert not store.ledger.lease("a", "second", 60)
    store.ledger.release("a", "first")
    assert store.ledger.lease("a", "second", 60)
    assert store.ledger.lease("b", "first", 60)


def test_a_lease_ends(store: Store) -> None:
    """A worker that does not renew its lease in time loses it."""
    assert store.ledger.lease("a", "first", 0)
    assert store.ledger.lease("a", "second", 60)
    assert not store.ledger.lease("a", "first", 60)


def test_one_lease_wins(store: Store) -> None:
    """Of many workers that ask for a lease at the same time, one gets it."""
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda worker: store.ledger.lease("a", str(worker), 60), range(16)))
    assert won.count(True) == 1


@both_tables
def test_threads(store: Store) -> None:
    """Threads add and read at the same time, and nothing is lost."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.add([page("a", number)]), range(40)))
        found = pool.map(lambda number: store.fetch([PageKey("a", number)]), range(40))
        assert [len(pages) for pages in found] == [1] * 40
    assert store.count() == 40


@pytest.mark.parametrize(("dim", "other"), [(128, 320), (320, 128), (100, 104)], indirect=["dim"])
def test_another_dimension(store: Store, store_name: str, dim: int, other: int) -> None:
    """A model of another dimension is refused, in words that say what to do; nothing changes."""
    made, foreign = unit_vectors(30, 1), unit_vectors(30, 2, other)
    agree_on_model(store, made)
    store.add([page("a", 1), page("a", 2)])
    before = [found.vectors.tobytes() for found in store.fetch([PageKey("a", 1), PageKey("a", 2)])]
    alien = Page(PageKey("a", 1), foreign)
    with open_store(store_name) as again:
        for opened in (store, again):
            for refused in (
                partial(opened.add, [alien]),
                partial(opened.candidates, foreign, 5),
                partial(opened.save_fingerprint, foreign),
                partial(agree_on_model, opened, foreign),
                partial(check_model, opened, foreign),
            ):
                with pytest.raises(OtherModel, match=f"{dim} dimensions, these have {other}: use"):
                    refused()
            with pytest.raises(
                StoreError, match=f"one dimension, these have {min(dim, other)} and"
            ):
                opened.add([page("a", 3), alien])
            found = opened.fetch([PageKey("a", 1), PageKey("a", 2)])
            assert [one.vectors.tobytes() for one in found] == before
            np.testing.assert_allclose(opened.fingerprint(), made, atol=1e-3)
    assert store.documents() == {"a": 2}


@pytest.mark.parametrize("dim", [128, 320], indirect=True)
def test_pages_without_a_fingerprint_have_a_dimension(store: Store, dim: int) -> None:
    """A fingerprint of another dimension is not taken for that of pages which were never told."""
    store.add([page("a", 1)])
    with pytest.raises(OtherModel, match=f"{dim} dimensions, these have 48"):
        agree_on_model(store, unit_vectors(9, 1, 48))
    assert store.fingerprint() is None


@pytest.mark.usefixtures("scanning")
def test_an_empty_store_takes_any_model(store: Store, store_name: str) -> None:
    """Once its last page is gone, a store may have pages of another dimension; all see them."""
    with open_store(store_name) as other:
        for dim in (128, 320, 1, 48, 100, 4096, 128):
            fingerprint = unit_vectors(9, dim, dim)
            agree_on_model(store, fingerprint)
            pages = [
                Page(PageKey(name, 1), unit_vectors(7, n, dim)) for n, name in enumerate("abc")
            ]
            store.add(pages)
            for opened in (store, other):
                for wanted in pages:
                    nearest = opened.candidates(wanted.vectors, 3)
                    assert sorted(nearest) == [one.key for one in pages]
                    assert nearest[0] == wanted.key or dim == 1  # where all have both signs
                    [found] = opened.fetch([wanted.key])
                    np.testing.assert_allclose(found.vectors, wanted.vectors, atol=1e-3)
                check_model(opened, fingerprint)
            assert [store.delete("a"), other.delete("b"), store.delete("c")] == [1, 1, 1]
            assert (other.count(), other.candidates(fingerprint, 3)) == (0, [])


@pytest.mark.usefixtures("scanning")
def test_searches_while_another_model_takes_over(store: Store) -> None:
    """A search beside it finds pages of its model, or none, or is refused; it never breaks."""
    ended, dims = Event(), (320, 128)

    def search(dim: int) -> None:
        query = unit_vectors(3, 1, dim)
        while not ended.is_set():
            with suppress(OtherModel):
                found = store.fetch(store.candidates(query, 5))
                assert {one.vectors.shape[1] for one in found} <= set(dims)

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search, dim) for dim in dims * 2]
        for dim in dims * 6:
            store.add([page("a", number, dim=dim) for number in range(1, 9)])
            assert store.delete("a") == 8
        ended.set()
        for done in searches:
            done.result()


def test_two_models_begin_at_once(store_name: str) -> None:
    """Of two models that add the first pages at the same time, one gets the store."""

    def begin(dim: int) -> bool:
        with open_store(store_name) as store:
            try:
                store.add([Page(PageKey(f"of {dim}", 1), unit_vectors(5, 1, dim))])
            except OtherModel:
                return False
        return True

    dims = [128, 320, 128, 320, 48, 100]
    with open_store(store_name) as store, ThreadPoolExecutor(len(dims)) as pool:
        for _ in range(4):
            winners = {dim for dim, won in zip(dims, pool.map(begin, dims), strict=True) if won}
            assert len(winners) == 1
            [dim] = winners
            assert store.documents() == {f"of {dim}": 1}
            assert store.fetch([PageKey(f"of {dim}", 1)])[0].vectors.shape == (5, dim)
            store.delete(f"of {dim}")


def test_labels(store: Store, store_name: str) -> None:
    """Each label has one folder, the one set last, for everyone who opens the store."""
    assert store.ledger.labels() == {}
    store.ledger.set_label("reports", "/srv/reports")
    store.ledger.set_label("Belege 2024", "/srv/Büro/Belege")
    store.ledger.set_label("reports", "/mnt/reports")
    expected = {"reports": "/mnt/reports", "Belege 2024": "/srv/Büro/Belege"}
    assert store.ledger.labels() == expected
    with open_store(store_name) as again:
        assert again.ledger.labels() == expected


def test_a_store_is_a_context_manager(store_name: str) -> None:
    """At the end of the block a store is closed; what it did is there."""
    with open_store(store_name) as store:
        store.add([page("a", 1)])
    with open_store(store_name) as store:
        assert store.count() == 1


@both_tables
def test_a_condensed_page_comes_back(store: Store, store_name: str) -> None:
    """Vectors that are kept once come back with the map of all tokens; other pages have none."""
    rows = np.array([0, 1, 0, 0, 2, 1], np.int32)
    small = page("a", 1, grid=PatchGrid(2, 2, 1))
    small = replace(small, vectors=small.vectors[:3], token_rows=rows)
    store.add([small, page("a", 2)])
    found, plain = store.fetch([PageKey("a", 1), PageKey("a", 2)])
    assert plain.token_rows is None
    assert found.token_rows is not None and found.token_rows.dtype == np.int32
    np.testing.assert_array_equal(found.token_rows, rows)
    np.testing.assert_allclose(found.token_vectors, small.vectors[rows], atol=1e-3)
    store.add([replace(small, vectors=small.vectors[rows], token_rows=None)])
    [again] = store.fetch([PageKey("a", 1)])
    assert again.token_rows is None and len(again.vectors) == 6


@both_tables
def test_the_threshold_is_kept(store: Store, store_name: str) -> None:
    """A store keeps the threshold that was saved last; a new one has none."""
    assert store.condensing() is None
    store.save_condensing(0.99)
    store.save_condensing(0.995)
    with open_store(store_name) as again:
        assert again.condensing() == store.condensing() == 0.995


@both_tables
@pytest.mark.usefixtures("scanning")
def test_vectors_are_revised(store: Store) -> None:
    """Pages get other vectors where they are and keep all else; one that is gone stays gone."""
    fields = {"metadata": {"year": 2024}, "text": "Grüße", "thumbnail": b"\xff\xd8"}
    store.add([page("a", number, **fields) for number in (1, 2, 3)] + [page("b", 1)])
    store.candidates(unit_vectors(4, 0), 1)  # whatever is cached is brought up to date
    seen = []

    def keep_two(old: Page) -> Page:
        seen.append(old.key.number)
        rows = np.array([0, 1] + [0] * (len(old.vectors) - 2), np.int32)
        return (
            old if old.key.number == 2 else replace(old, vectors=old.vectors[:2], token_rows=rows)
        )

    keys = [PageKey("a", number) for number in (1, 2, 3, 9)]
    assert store.revise(keys, keep_two) == 2
    assert (sorted(seen), store.count()) == ([1, 2, 3], 4)
    for found in store.fetch(keys):
        assert {name: getattr(found, name) for name in fields} == fields
        made = page("a", found.key.number)
        assert len(found.token_vectors) == len(made.vectors)
        assert len(found.vectors) == (len(made.vectors) if found.key.number == 2 else 2)
        np.testing.assert_allclose(found.vectors[:2], made.vectors[:2], atol=1e-3)
    assert store.candidates(page("a", 3).vectors[:2], 1) == [PageKey("a", 3)]
