"""Centroids of a store's vectors, and which of them stand for a page: the first look of a search.

A page is near a query where its vectors fall to the centroids that are near the query's vectors, as
in PLAID (Santhanam et al., 2022). Centroids are found in two levels, so that a page's vectors are
compared with some hundreds of them instead of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pagevec.types import MultiVector

MOST = 1 << 15
"""Centroids of a store. Measured on pages with the spread of real ones: of the ten best pages among
1,600, the first fifth had 0.93 with 8,192, 0.973 with 32,768 and 0.987 with 65,536 centroids."""

_SAMPLES = 12
"""Vectors to train a centroid with."""
_ROUNDS = 6
_NEAREST_CELLS = 2
_ROWS = 8192
_LEAST_LENGTH = np.float32(1e-12)

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Centroids:
    """Unit vectors in cells: a cell has a middle, and as many centroids as every other.

    Attributes:
        middles: float32 (cells, dim).
        fine: float32 (cells, centroids of a cell, dim).
    """

    middles: MultiVector
    fine: NDArray[np.float32]

    @classmethod
    def train(cls, vectors: MultiVector) -> Self:
        """Return centroids of `vectors`, float32 (n, dim) of unit length; the same ones each time.

        There are fewer than `MOST` where the vectors are few.
        """
        wanted = min(MOST, max(1, len(vectors) // _SAMPLES))
        cells = max(1, round((wanted / 2) ** 0.5))
        chance = np.random.default_rng(0)
        few = vectors[chance.permutation(len(vectors))[: cells * 1024]]
        nothing = np.zeros(vectors.shape[1], np.float32)
        middles = _cluster(few, cells, chance, nothing)
        nearest = _nearest(vectors, middles)
        fine = [
            _cluster(vectors[nearest == cell], -(-wanted // cells), chance, middles[cell])
            for cell in range(cells)
        ]
        return cls(middles, np.stack(fine))

    @classmethod
    def from_bytes(cls, packed: bytes, dim: int, cells: int) -> Self:
        """Return the centroids that `to_bytes` made into bytes.

        Raises:
            ValueError: the bytes are of none.
        """
        values = np.frombuffer(packed, np.float16).astype(np.float32)
        if not len(values) or not np.isfinite(values).all():
            raise ValueError("its centroids are no numbers")
        middles, fine = np.split(values, [cells * dim])
        return cls(middles.reshape(cells, dim), fine.reshape(cells, -1, dim))

    def to_bytes(self) -> bytes:
        """Return the centroids as bytes, in float16."""
        return b"".join(part.astype(np.float16).tobytes() for part in (self.middles, self.fine))

    def __len__(self) -> int:
        return int(self.fine.shape[0] * self.fine.shape[1])

    @property
    def dim(self) -> int:
        """Components of each centroid."""
        return int(self.fine.shape[2])

    def assign(self, vectors: MultiVector) -> Positions:
        """Return the nearest centroid of each vector, int64 (n,), as far as two levels find it."""
        cells = [_highest(part, _NEAREST_CELLS) for part in _products(vectors, self.middles)]
        near = np.concatenate(cells if cells else [np.empty((0, 1), np.int64)])
        best = np.full(len(vectors), -np.inf, np.float32)
        assigned = np.zeros(len(vectors), np.int64)
        for cell, rows in _group(near):
            similar = vectors[rows] @ self.fine[cell].T
            place = similar.argmax(1)
            value = similar[np.arange(len(rows)), place]
            better = value > best[rows]
            best[rows[better]] = value[better]
            assigned[rows[better]] = cell * self.fine.shape[1] + place[better]
        return assigned

    def similarities(self, query: MultiVector) -> NDArray[np.float32]:
        """Return the dot products of a query's vectors with all centroids, float32 (n, len)."""
        products: NDArray[np.float32] = query @ self.fine.reshape(-1, self.dim).T
        return products


def _cluster(
    vectors: MultiVector,
    count: int,
    chance: "np.random.Generator",  # numpy.random takes long to import
    default: NDArray[np.float32],
) -> MultiVector:
    """Return `count` unit vectors that stand for `vectors`, by spherical k-means.

    Args:
        vectors: float32 (n, dim).
        count: how many to return.
        chance: chooses the first ones.
        default: float32 (dim,), what is returned again and again if there are no vectors.
    """
    if not len(vectors):
        return np.repeat(default[None], count, axis=0)
    first = np.resize(chance.permutation(len(vectors)), count)
    centroids = vectors[first].copy()
    for _ in range(_ROUNDS):
        nearest = _nearest(vectors, centroids)
        order = np.argsort(nearest, kind="stable")
        filled, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(vectors[order], starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids[filled] = sums / np.maximum(lengths, _LEAST_LENGTH)
    return centroids


def _nearest(vectors: MultiVector, others: MultiVector) -> Positions:
    """Return the position of the nearest one of `others` to each vector, (n,)."""
    parts = [part.argmax(1) for part in _products(vectors, others)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _products(vectors: MultiVector, others: MultiVector) -> Iterator[NDArray[np.float32]]:
    """Yield the dot products of some thousand vectors at a time, (rows, others)."""
    for first in range(0, len(vectors), _ROWS):
        yield vectors[first : first + _ROWS] @ others.T


def _highest(similar: NDArray[np.float32], count: int) -> Positions:
    """Return the positions of the `count` highest values of each row, in any order."""
    count = min(count, similar.shape[1])
    positions: Positions = np.argpartition(similar, -count, axis=1)[:, -count:]
    return positions


def _group(near: Positions) -> Iterator[tuple[int, Positions]]:
    """Yield each cell with the rows that are near it."""
    rows = np.repeat(np.arange(len(near)), near.shape[1])
    cells = near.ravel()
    order = np.argsort(cells, kind="stable")
    found, starts = np.unique(cells[order], return_index=True)
    # Without rows there are no cells, but one part.
    yield from zip(found.tolist(), np.split(rows[order], starts[1:]), strict=False)
