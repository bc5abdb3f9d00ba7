"""Near-duplicate vectors are kept once: what stands for them, and where each token is."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Service
from pagevec.client import Client
from pagevec.engine.models.registry import BUNDLED, BUNDLED_REVISION
from pagevec.errors import InvalidRequest
from pagevec.grid import PatchGrid
from pagevec.search.maxsim import maxsim
from pagevec.search.similarity_maps import token_maps
from pagevec.stores import condense as module
from pagevec.stores.base import Store
from pagevec.stores.condense import (
    MEASURED,
    OFF,
    agree_on_threshold,
    condense,
    condense_page,
    error_bound,
    pack_rows,
    unpack_rows,
)
from pagevec.types import ModelInfo, MultiVector, Page, PageKey
from vectors import page, unit_vectors

thresholds = st.sampled_from([0.9, 0.99, 0.995, 0.999, 1.0, OFF])


def near_duplicates(
    count: int, groups: int, spread: float, seed: int, dim: int = 32
) -> MultiVector:
    """Return unit vectors in groups, each at most about `spread` from the middle of its group."""
    generator = np.random.default_rng(seed)
    middles = unit_vectors(groups, generator, dim)[generator.integers(groups, size=count)]
    near = middles + spread * unit_vectors(count, generator, dim)
    made: MultiVector = near / np.linalg.norm(near, axis=1, keepdims=True)
    return made


pages_of_vectors = st.builds(
    near_duplicates,
    count=st.integers(1, 300),
    groups=st.integers(1, 40),
    spread=st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3, 1.0]),
    seed=st.integers(0, 1 << 30),
)


@settings(max_examples=150, deadline=None)
@given(pages_of_vectors, thresholds)
def test_each_vector_is_near_to_what_stands_for_it(vectors: MultiVector, threshold: float) -> None:
    """Every dropped vector has the threshold's cosine with a kept one, the most similar of them."""
    positions, rows = condense(vectors, threshold)
    kept = vectors[positions]
    assert len(set(positions.tolist())) == len(positions) <= len(rows) == len(vectors)
    np.testing.assert_array_equal(rows[positions], np.arange(len(positions)))
    cosines = vectors @ kept.T
    own = cosines[np.arange(len(rows)), rows]
    dropped = np.setdiff1d(np.arange(len(rows)), positions)
    assert (own[dropped] >= threshold - 1e-6).all()
    assert (own[dropped] >= cosines[dropped].max(axis=1, initial=-1) - 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(pages_of_vectors, thresholds)
def test_what_a_search_may_lose(vectors: MultiVector, threshold: float) -> None:
    """No product with a query's vector changes by more than the distance to what stands for it."""
    query = unit_vectors(9, 5, vectors.shape[1])
    positions, rows = condense(vectors, threshold)
    lost = np.abs(query @ vectors.T - query @ vectors[positions][rows].T)
    assert lost.max() <= error_bound(threshold) + 1e-5
    full, smaller = maxsim(query, [vectors, vectors[positions]])
    assert smaller - 1e-5 <= full <= smaller + len(query) * (error_bound(threshold) + 1e-5)


@given(pages_of_vectors, thresholds)
@settings(max_examples=50, deadline=None)
def test_equal_vectors_give_equal_choices(vectors: MultiVector, threshold: float) -> None:
    """The choice depends on nothing but the vectors; equal vectors are kept once, the first."""
    first, again = condense(vectors, threshold), condense(vectors.copy(), threshold)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    positions, rows = condense(np.repeat(vectors[:1], 7, axis=0), 0.99)
    assert (positions.tolist(), rows.tolist()) == ([0], [0] * 7)


def test_fewer_than_as_they_come() -> None:
    """A greedy cover keeps one vector where taking them as they come keeps two."""
    angles = np.deg2rad([0.0, 2.0, 4.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    positions, rows = condense(vectors, float(np.cos(np.deg2rad(2.5))))
    assert (positions.tolist(), rows.tolist()) == ([1], [0, 0, 0])


def test_vectors_of_any_length() -> None:
    """Vectors that int8 has made longer or shorter are compared by their cosines."""
    vectors = near_duplicates(60, 4, 0.05, 1)
    stretched = vectors * np.linspace(0.95, 1.05, 60, dtype=np.float32)[:, None]
    for one, other in zip(condense(vectors, 0.99), condense(stretched, 0.99), strict=True):
        np.testing.assert_array_equal(one, other)


def test_long_pages_are_condensed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a page of any length no more vectors are compared at a time than a block has."""
    seen: list[int] = []
    cover = module._cover

    def watched(vectors: MultiVector, threshold: float) -> np.ndarray:
        seen.append(len(vectors))
        return cover(vectors, threshold)

    monkeypatch.setattr(module, "_cover", watched)
    vectors = near_duplicates(5000, 30, 0.01, 3)
    positions, rows = condense(vectors, 0.99)
    assert seen == [2048, 2048, 904]
    assert len(positions) == 90  # 30 groups in each of three blocks
    assert np.vecdot(vectors, vectors[positions][rows]).min() >= 0.99


def test_nothing_to_condense() -> None:
    """A page without vectors, and one at `OFF`, come through."""
    positions, rows = condense(np.empty((0, 8), np.float32), 0.99)
    assert (len(positions), len(rows)) == (0, 0)
    assert unpack_rows(pack_rows(rows), 0).tolist() == []
    plain = page("a", 1)
    assert condense_page(plain, OFF) is plain
    condensed = condense_page(plain, 0.9)
    assert condense_page(condensed, 0.9) is condensed  # not again: losses would add up


@pytest.mark.parametrize("tiles", [1, 3])
def test_maps_have_all_cells(tiles: int) -> None:
    """A map is cell for cell that of all vectors, within the bound; tiles share no vectors."""
    grid = PatchGrid(8, 6, 2)
    vectors = near_duplicates(tiles * 53, 12, 0.04, 1, 128)
    metadata = {"tiles": tiles} if tiles > 1 else {}
    full = Page(PageKey("a", 1), vectors, metadata, grid=grid)
    small = condense_page(full, 0.99)
    assert len(small.vectors) < 0.7 * len(vectors)
    query = unit_vectors(5, 2)
    before, after = token_maps(query, full), token_maps(query, small)
    assert before.shape == after.shape
    assert np.abs(before - after).max() <= error_bound(0.99)
    for whole, part in zip(full.tiles, small.tiles, strict=True):
        assert (np.max(whole @ part.T, axis=1) >= 0.99 - 1e-6).all()
    assert sum(map(len, small.tiles)) == len(small.vectors)


def test_a_map_of_tokens_is_small() -> None:
    """The map comes back from bytes; that of a page with much blank is below 1 % of its vectors."""
    vectors = near_duplicates(1479, 500, 0.01, 4, 128)
    positions, rows = condense(vectors, 0.99)
    packed = pack_rows(rows)
    np.testing.assert_array_equal(unpack_rows(packed, len(positions)), rows)
    assert len(packed) < 0.01 * 256 * 1479


@given(st.lists(st.integers(0, 70_000), max_size=60))
def test_any_map_comes_back(values: list[int]) -> None:
    """Whatever rows the tokens have, they come back, once numbered as they are met."""
    first: dict[int, int] = {}
    rows = np.array([first.setdefault(one, len(first)) for one in values], np.int32)
    np.testing.assert_array_equal(unpack_rows(pack_rows(rows), len(first)), rows)


@pytest.mark.parametrize("rows", [[1], [0, 2], [-1], [0, 0, 2, 1]])
def test_rows_that_are_not_numbered_as_they_are_met(rows: list[int]) -> None:
    """A map that skips a row, or is negative, is refused before it is stored."""
    with pytest.raises(ValueError, match="not numbered as they are met"):
        pack_rows(np.array(rows, np.int32))


def damaged_maps() -> dict[str, bytes]:
    good = pack_rows(np.array([0, 1, 0, 2, 2, 1], np.int32))

    def forge(tokens: int, news: list[int], others: list[int]) -> bytes:
        planes = np.array(others, "<u4").view(np.uint8).reshape(-1, 4).T.tobytes()
        content = np.packbits(np.array(news, bool)).tobytes() + planes
        return struct.pack("<I", tokens) + zlib.compress(content)

    return {
        "empty": b"",
        "short": good[:3],
        "cut": good[:-3],
        "garbled": good[:6] + b"\x00\xff" + good[8:],
        "of another page": pack_rows(np.array([0, 1, 0, 1, 0, 1], np.int32)),
        "too few tokens": forge(2, [1, 1], []),
        "out of range": forge(6, [1, 1, 0, 1, 0, 0], [0, 9, 1]),
        "of a later row": forge(6, [1, 1, 0, 1, 0, 0], [2, 2, 1]),
        "huge": struct.pack("<I", 0xFFFFFFFF) + zlib.compress(bytes(1 << 20)),
        "begins with no row": forge(6, [0, 1, 1, 1, 0, 0], [0, 2, 1]),
    }


@pytest.mark.parametrize("damage", damaged_maps())
def test_damaged_maps_are_not_trusted(damage: str) -> None:
    """Bytes that are no map to all of a page's vectors are refused."""
    with pytest.raises(ValueError, match="the map of its tokens"):
        unpack_rows(damaged_maps()[damage], 3)


def test_the_threshold_of_a_new_store(store: Store) -> None:
    """A new store takes what was measured with its model, or what was asked; it stays with it."""
    measured = MEASURED[BUNDLED, BUNDLED_REVISION]
    assert agree_on_threshold(store, ModelInfo(BUNDLED, BUNDLED_REVISION)) == measured
    assert agree_on_threshold(store, ModelInfo("another/model")) == measured
    with pytest.raises(InvalidRequest, match=r"0\.995 or above: `pagevec store compact`"):
        agree_on_threshold(store, ModelInfo(BUNDLED, BUNDLED_REVISION), OFF)
    store.save_condensing(0.98)
    assert (store.condensing(), agree_on_threshold(store, ModelInfo("a"), 0.98)) == (0.98, 0.98)


def test_models_that_were_not_measured(store: Store) -> None:
    """With another model, or another revision, a new store keeps all vectors."""
    assert agree_on_threshold(store, ModelInfo(BUNDLED, "drawn-9")) == OFF
    assert store.condensing() == OFF


def test_a_store_that_has_pages(store: Store) -> None:
    """A store of before keeps all vectors, and says so to who asks for something else."""
    store.add([page("a", 1)])
    assert agree_on_threshold(store, ModelInfo(BUNDLED, BUNDLED_REVISION)) == OFF
    assert store.condensing() is None
    with pytest.raises(InvalidRequest, match="keeps all vectors"):
        agree_on_threshold(store, ModelInfo(BUNDLED, BUNDLED_REVISION), 0.99)


def test_a_store_that_knows_of_no_thresholds() -> None:
    """A user's own store that was written before keeps all vectors: it has no place for maps."""

    class Own(Store):
        def count(self) -> int:
            return 0

    assert agree_on_threshold(Own(), ModelInfo(BUNDLED, BUNDLED_REVISION)) == OFF  # type: ignore[abstract]


def test_what_is_measured_is_what_is_bundled(service: Service) -> None:
    """The table names the bundled model as the service does, so that new stores are condensed."""
    with Client(service.url, service.key) as client:
        info = client.info()
    assert (info.model, info.revision) in MEASURED
