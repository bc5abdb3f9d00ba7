"""The index of sign bits, compared with a loop over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagevec.stores import hamming
from pagevec.stores.hamming import BitIndex
from pagevec.stores.probe import PackedBits
from pagevec.types import MultiVector


def distance(query: MultiVector, rows: PackedBits) -> float:
    """Return the distance of one page, computed pair by pair."""
    bits = np.unpackbits(rows, axis=-1, count=query.shape[1])
    total = 0.0
    for vector in query:
        least = np.sort(np.abs(vector))[int(0.4 * len(vector))]  # smaller ones are not compared
        compared = np.abs(vector) >= least
        different = (bits != (vector > 0)) & compared
        total += float(np.abs(vector)[compared].mean()) * int(different.sum(axis=-1).min())
    return total


def vectors(random: np.random.Generator, count: int, dim: int) -> MultiVector:
    return random.standard_normal((count, dim), dtype=np.float32)


def signs(random: np.random.Generator, count: int, dim: int) -> PackedBits:
    return np.packbits(random.integers(0, 2, (count, dim), dtype=np.uint8), axis=-1)


# Few different bits, so that distances are often equal; pages 0 to 9, so that many are replaced.
steps = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), st.integers(0, 9), st.integers(0, 4)),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(steps=steps, dim=st.sampled_from([1, 8, 64, 100, 128, 320]), limit=st.integers(0, 12))
def test_best_pages_are_those_of_brute_force(
    steps: list[tuple[str, int, int]], dim: int, limit: int
) -> None:
    """After any changes, the best pages are those that a loop over all pairs finds."""
    random = np.random.default_rng(0)
    index, pages = BitIndex(dim), dict[int, PackedBits]()
    for what, number, count in steps:
        if what == "put":
            pages[number] = signs(random, count, dim)
            index.put([number], [pages[number]])
        else:
            pages.pop(number, None)
            index.remove([number])
    query = vectors(random, 3, dim)
    expected = {number: distance(query, rows) for number, rows in pages.items() if len(rows)}
    found = index.best(query, limit)
    assert len(index) == len(expected)
    assert len(set(found)) == len(found) == min(limit, len(expected))
    nearest = sorted(expected.values())[:limit]
    np.testing.assert_allclose([expected[number] for number in found], nearest, rtol=1e-5)


def test_holes_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages replaced again and again neither fill the memory nor spoil results across blocks."""
    monkeypatch.setattr(hamming, "_FEW_ROWS", 16)
    monkeypatch.setattr(hamming, "BLOCK", 4)
    random, index, pages = np.random.default_rng(0), BitIndex(128), dict[int, PackedBits]()
    for turn in range(200):
        changed = {
            int(number): random.integers(0, 256, (1 + turn % 5, 16), dtype=np.uint8)
            for number in random.choice(30, 5, replace=False)
        }
        index.put(list(changed), list(changed.values()))
        pages |= changed
    assert index._planes.shape[1] < 1000
    query = vectors(random, 3, 128)
    nearest = sorted(distance(query, rows) for rows in pages.values())
    found = [distance(query, pages[number]) for number in index.best(query, 30)]
    np.testing.assert_allclose(found, nearest, rtol=1e-5)


@pytest.mark.parametrize("dim", [255, 256, 4096, 65_536])
def test_the_longest_distance_is_counted(dim: int) -> None:
    """Vectors that differ in all of their bits are farther than those that differ in some."""
    index = BitIndex(dim)
    # Components of the same size are all compared.
    query = np.sign(vectors(np.random.default_rng(0), 1, dim))
    same, opposite = np.packbits(query > 0, axis=-1), np.packbits(query < 0, axis=-1)
    half = same.copy()
    half[:, : dim // 16] ^= 255
    index.put([0, 1, 2], [opposite, half, same])
    assert index.best(query, 3) == [2, 1, 0]
