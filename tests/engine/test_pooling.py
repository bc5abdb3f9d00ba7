"""Token pooling gives what colpali-engine's pooler gives."""

import numpy as np
import pytest
from benchmarks.pooling import pool_as_colpali

from pagevec.engine.pooling import pool
from pagevec.types import MultiVector


def unit(vectors: np.ndarray) -> MultiVector:
    """Return the rows with length 1, as float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def like_a_page(count: int) -> MultiVector:
    """Return `count` vectors around a third as many centres: neighbours on a page are alike."""
    generator = np.random.default_rng(5)
    centres = generator.standard_normal((count // 3 + 1, 128))
    return unit(
        centres[generator.integers(0, len(centres), count)]
        + 0.3 * generator.standard_normal((count, 128))
    )


@pytest.mark.filterwarnings("ignore:The symmetric non-negative hollow")  # of colpali-engine's call
@pytest.mark.parametrize("factor", [2, 3, 16])
@pytest.mark.parametrize("count", [2, 3, 17, 128, 300, 780])
def test_it_is_colpali_engines_pooler(count: int, factor: int) -> None:
    """The same vectors in the same order, with fewer vectors than dimensions and with more."""
    vectors = like_a_page(count)
    expected = pool_as_colpali(vectors, factor)
    np.testing.assert_allclose(pool(vectors, factor), expected, atol=1e-6)


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
