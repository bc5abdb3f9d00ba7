"""MaxSim is what colpali-engine computes, for pages of any length."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pagevec.engine.models.compat import import_torchvision
from pagevec.grid import PatchGrid
from pagevec.search.maxsim import maxsim
from pagevec.types import Page, PageKey
from vectors import unit_vectors


def test_equals_colpali_engine() -> None:
    """The scores of ragged pages are score_multi_vector's."""
    import_torchvision()
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

    random = np.random.default_rng(0)
    query = unit_vectors(20, random)
    pages = [unit_vectors(int(count), random) for count in random.integers(100, 800, 21)]
    theirs = BaseVisualRetrieverProcessor.score_multi_vector(
        [torch.from_numpy(query)], [torch.from_numpy(page) for page in pages], device="cpu"
    )
    scores = maxsim(query, pages)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, theirs[0].numpy(), atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(0, 9), max_size=16),
    words=st.integers(0, 5),
    dim=st.sampled_from([8, 128]),
)
def test_any_lengths(counts: list[int], words: int, dim: int) -> None:
    """Each page's score is the plain sum of maxima; pages and queries without vectors score 0."""
    random = np.random.default_rng(1)
    query = unit_vectors(words, random, dim)
    pages = [unit_vectors(count, random, dim) for count in counts]
    plain = [float((query @ page.T).max(axis=1).sum()) if len(page) else 0.0 for page in pages]
    np.testing.assert_allclose(maxsim(query, pages), plain, atol=1e-5)
    alone = [maxsim(query, Page(PageKey("a", 1), page).tiles).max() for page in pages]
    np.testing.assert_allclose(alone, plain, atol=1e-5)


def test_a_long_page_scores_as_its_best_tile() -> None:
    """Of a page in tiles the best one counts, whether or not its vectors are condensed."""
    query, vectors = unit_vectors(6, 1), unit_vectors(40, 2)
    tiles = np.split(vectors, 4)
    best = maxsim(query, tiles).max()
    assert best < maxsim(query, [vectors])[0]
    grid, metadata = PatchGrid(2, 5, 0), {"tiles": 4}
    whole = Page(PageKey("a", 1), vectors, metadata, grid=grid)
    assert maxsim(query, whole.tiles).max() == np.float32(best)
    rows = np.repeat(np.arange(40), 2)
    condensed = Page(PageKey("a", 1), vectors, metadata, grid=grid, token_rows=rows)
    assert maxsim(query, condensed.tiles).max() == np.float32(best)
