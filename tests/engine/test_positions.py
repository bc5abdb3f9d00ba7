"""What is cached for pages and texts is bounded, whatever their shapes and lengths are."""

import psutil
import pytest

from conftest import make_settings
from pagevec.engine.backends import load
from pagevec.engine.backends.packed.backend import PackedBackend

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def backend() -> PackedBackend:
    one = load(make_settings(model="bundled"))
    assert isinstance(one, PackedBackend)
    return one


def test_texts_of_many_lengths_share_their_positions(backend: PackedBackend) -> None:
    """The angles of 2,000 long texts take no more memory than those of the longest one."""
    positions = backend._positions
    positions.of_text(32_000)
    before = psutil.Process().memory_info().rss
    kept = [positions.of_text(32_000 - number) for number in range(2000)]
    assert psutil.Process().memory_info().rss - before < 32 * MIB
    assert [len(one.cos_sin[0]) for one in kept[:3]] == [32_000, 31_999, 31_998]


def test_a_text_that_is_longer_than_those_before(backend: PackedBackend) -> None:
    """Its first angles are those of a shorter text."""
    short, long = backend._positions.of_text(100), backend._positions.of_text(70_001)
    assert len(long.cos_sin[0]) == 70_001
    assert all(a[:100].equal(b) for a, b in zip(long.cos_sin, short.cos_sin, strict=True))
