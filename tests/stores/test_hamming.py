"""The index of sign bits, compared with a loop over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagevec.stores import hamming
from pagevec.stores.hamming import BitIndex, PackedBits


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
def test_best_pages_are_those_of_brute_force(
    steps: list[tuple[str, int, int]], dim: int, limit: int
) -> None:
    """After any changes, the best pages are those that a loop over all pairs finds."""
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
    query = random.integers(0, 256, (3, 16), dtype=np.uint8)
    expected = sorted(distance(query, rows) for rows in pages.values())
    assert [distance(query, pages[number]) for number in index.best(query, 30)] == expected
