"""Exact MaxSim of a query against pages of different length, as matrix products in numpy."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagevec.types import MultiVector

_SMALL_PRODUCT = 1 << 18
"""Multiplications that OpenBLAS, which numpy brings, does in the calling thread.

A larger product of this shape gains nothing from OpenBLAS's threads: they wait spinning, and take
the cores from the rest of the search. Measured on 2 busy cores: a third of the processor time.
"""

_ALONE = os.environ.get("OPENBLAS_NUM_THREADS") == "1"
"""Whether OpenBLAS multiplies in the calling thread, whatever the size: a quarter faster."""


def maxsim(query: MultiVector, pages: Sequence[MultiVector]) -> NDArray[np.float32]:
    """Return for each page the sum over query vectors of the best dot product in the page.

    Shapes: query (q, dim), each page (n, dim) with an n of its own; scores (pages,), float32.
    A page without vectors scores 0, and so does every page for a query without vectors.
    """
    # A page at a time, in few steps: threads that score pages wait for each other at each of them.
    return np.array([_score(query, page) for page in pages], np.float32)


def _score(query: MultiVector, page: MultiVector) -> float:
    return float(_products(page, query).max(axis=0).sum()) if len(page) else 0.0


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
