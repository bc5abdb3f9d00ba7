"""Exact MaxSim of a query against pages of different length, as matrix products in numpy."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagevec.types import MultiVector, Page

BLOCK = 8
"""Pages scored together: few enough for the processor's cache."""

_SMALL_PRODUCT = 1 << 18
"""Multiplications that OpenBLAS, which numpy brings, does in the calling thread.

A larger product of this shape gains nothing from OpenBLAS's threads: they wait spinning, and take
the cores from the rest of the search. Measured on 2 busy cores: a third of the processor time.
"""

_ALONE = os.environ.get("OPENBLAS_NUM_THREADS") == "1"
"""Whether OpenBLAS multiplies in the calling thread, whatever the size: a quarter faster."""


def score_page(query: MultiVector, page: Page) -> float:
    """Return the score of one page: of a long page that of its best tile.

    It is what `maxsim` returns of the tiles, in fewer steps: two threads that score pages wait for
    each other at each step of numpy.
    """
    return max(_score(query, tile) for tile in page.tiles)


def maxsim(query: MultiVector, pages: Sequence[MultiVector]) -> NDArray[np.float32]:
    """Return for each page the sum over query vectors of the best dot product in the page.

    Shapes: query (q, dim), each page (n, dim) with an n of its own; scores (pages,), float32.
    A page without vectors scores 0, and so does every page for a query without vectors.
    """
    scores = np.zeros(len(pages), np.float32)
    # reduceat has no answer for an empty stretch.
    filled = [position for position, page in enumerate(pages) if len(page)]
    for first in range(0, len(filled), BLOCK):
        block = filled[first : first + BLOCK]
        scores[block] = _block_scores(query, [pages[position] for position in block])
    return scores


def _block_scores(query: MultiVector, pages: Sequence[MultiVector]) -> NDArray[np.float32]:
    starts = np.cumsum([0, *(len(page) for page in pages[:-1])])
    similarities = _products(pages[0] if len(pages) == 1 else np.concatenate(pages), query)
    best: NDArray[np.float32] = np.maximum.reduceat(similarities, starts, axis=0)
    total: NDArray[np.float32] = best.sum(axis=1, dtype=np.float32)
    return total


def _score(query: MultiVector, vectors: MultiVector) -> float:
    if not len(vectors):
        return 0.0
    return float(_products(vectors, query).max(axis=0).sum())


def _products(vectors: MultiVector, query: MultiVector) -> NDArray[np.float32]:
    """Return all dot products (n, q), as a stack of small matrix products."""
    products = np.empty((len(vectors), len(query)), np.float32)
    rows = max(1, _SMALL_PRODUCT // max(1, query.size))
    if _ALONE or len(vectors) <= rows:
        return np.matmul(vectors, query.T, out=products)
    count = len(vectors) // rows
    whole = count * rows
    stacked = products[:whole].reshape(count, rows, len(query))
    np.matmul(vectors[:whole].reshape(count, rows, vectors.shape[1]), query.T, out=stacked)
    np.matmul(vectors[whole:], query.T, out=products[whole:])
    return products
