"""MaxSim is what colpali-engine computes, for pages of any length."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pagevec.engine.torchvision_fix import import_torchvision
from pagevec.search.maxsim import BLOCK, maxsim
from pagevec.types import MultiVector


def unit_vectors(random: np.random.Generator, count: int, dim: int = 128) -> MultiVector:
    values = random.standard_normal((count, dim)).astype(np.float32)
    vectors: MultiVector = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def test_equals_colpali_engine() -> None:
    """The scores of ragged pages, more than one block of them, are score_multi_vector's."""
    import_torchvision()
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

    random = np.random.default_rng(0)
    query = unit_vectors(random, 20)
    pages = [unit_vectors(random, int(count)) for count in random.integers(100, 800, 2 * BLOCK + 5)]
    theirs = BaseVisualRetrieverProcessor.score_multi_vector(
        [torch.from_numpy(query)], [torch.from_numpy(page) for page in pages], device="cpu"
    )
    scores = maxsim(query, pages)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, theirs[0].numpy(), atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(0, 9), max_size=2 * BLOCK),
    words=st.integers(0, 5),
    dim=st.sampled_from([8, 128]),
)
def test_any_lengths(counts: list[int], words: int, dim: int) -> None:
    """Each page's score is the plain sum of maxima; pages and queries without vectors score 0."""
    random = np.random.default_rng(1)
    query = unit_vectors(random, words, dim)
    pages = [unit_vectors(random, count, dim) for count in counts]
    plain = [float((query @ page.T).max(axis=1).sum()) if len(page) else 0.0 for page in pages]
    np.testing.assert_allclose(maxsim(query, pages), plain, atol=1e-5)
