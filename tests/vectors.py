"""Seeded random multi-vectors and pages, equal in every run."""

from typing import Any

import numpy as np

from pagevec.types import MultiVector, Page, PageKey

DIM = 128
"""Components of vectors where a test does not say how many."""


def unit_vectors(
    count: int, seed: int | np.random.Generator, dim: int | None = None
) -> MultiVector:
    """Return float32 (count, dim), equal for equal seeds; a generator continues its sequence."""
    values = np.random.default_rng(seed).standard_normal((count, dim or DIM)).astype(np.float32)
    vectors: MultiVector = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def page(document: str, number: int, seed: int = 0, dim: int | None = None, **fields: Any) -> Page:
    """Return a page with 3 to 9 vectors, different for each document, number and seed."""
    salt = 100_000 * seed + 1000 * (sum(document.encode()) % 100) + number
    return Page(PageKey(document, number), unit_vectors(3 + number % 7, salt, dim), **fields)
