"""Token pooling gives what colpali-engine's pooler gives."""

import numpy as np
import pytest
from benchmarks.pooling import pool_as_colpali

from pagevec.engine.pooling import pool, pooling_bytes
from pagevec.types import MultiVector


def unit(vectors: np.ndarray) -> MultiVector:
    """Return the rows with length 1, as float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def like_a_page(count: int, dim: int = 128) -> MultiVector:
    """Return `count` vectors around a third as many centres: neighbours on a page are alike."""
    generator = np.random.default_rng(5)
    centres = generator.standard_normal((count // 3 + 1, dim))
    return unit(
        centres[generator.integers(0, len(centres), count)]
        + 0.3 * generator.standard_normal((count, dim))
    )


@pytest.mark.filterwarnings("ignore:The symmetric non-negative hollow")  # of colpali-engine's call
@pytest.mark.parametrize("factor", [2, 3, 16])
@pytest.mark.parametrize("count", [2, 3, 17, 128, 300, 780])
def test_it_is_colpali_engines_pooler(count: int, factor: int) -> None:
    """The same vectors in the same order, with fewer vectors than dimensions and with more."""
    vectors = like_a_page(count)
    expected = pool_as_colpali(vectors, factor)
    np.testing.assert_allclose(pool(vectors, factor), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The symmetric non-negative hollow")
@pytest.mark.parametrize(("count", "dim"), [(90, 100), (300, 100), (400, 320), (60, 4096)])
def test_vectors_of_any_dimension(count: int, dim: int) -> None:
    """Wider and narrower vectors are merged as colpali-engine merges them, too."""
    vectors = like_a_page(count, dim)
    np.testing.assert_allclose(pool(vectors, 3), pool_as_colpali(vectors, 3), atol=1e-6)


def test_long_vectors_take_more_memory() -> None:
    """What pooling takes grows with the components of its vectors, up to as many as these are."""
    taken = [pooling_bytes(700, dim) for dim in (48, 128, 320, 4096)]
    assert taken == sorted(taken)
    assert taken[1] < 8e6  # as measured, and somewhat more
    assert 29e6 < taken[3] < 64e6


def test_equal_vectors_become_one() -> None:
    """An empty page's vectors are equal: each place is merged with its like, none is lost."""
    different = like_a_page(4)
    pooled = pool(np.repeat(different, 50, axis=0), factor=50)
    assert len(pooled) == 4
    assert (pooled @ different.T).max(axis=0) == pytest.approx(1, abs=1e-6)


def test_one_vector_stays() -> None:
    """There is nothing to merge."""
    one = like_a_page(1)
    assert pool(one, factor=64) is one


def test_opposite_vectors_are_no_fault() -> None:
    """The mean of opposite vectors is zero: it stays zero, and is not NaN."""
    one = like_a_page(1)
    assert np.isfinite(pool(np.concatenate([one, -one]), factor=2)).all()
