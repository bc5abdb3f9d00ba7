"""Token pooling: fewer vectors for each page, by merging similar ones."""

import numpy as np
import torch
from numpy.typing import NDArray

from pagevec.types import MultiVector


def pool(vectors: MultiVector, factor: int) -> MultiVector:
    """Merge (n, dim) into about n / `factor` unit vectors, at least one.

    Hierarchical pooling: Ward clusters of similar vectors, each replaced by its mean, which
    "Reducing the footprint of multi-vector retrieval" evaluates (Clavié, Chaffin, Adams, 2024).
    The clusters, and their order, are those of colpali-engine's pooler.
    """
    if factor == 1 or len(vectors) < 2:
        return vectors
    clusters = _clusters(vectors, max(len(vectors) // factor, 1))
    sums = np.zeros((clusters.max() + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, clusters, vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: MultiVector = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return means


def _clusters(vectors: MultiVector, most: int) -> NDArray[np.int32]:
    """Return the number of each vector's cluster, from 0; `most` of them at most."""
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(_by_similarities(vectors), method="ward")
    numbers: NDArray[np.int32] = fcluster(tree, most, criterion="maxclust") - 1
    return numbers


def _by_similarities(vectors: MultiVector) -> NDArray[np.float64]:
    """Return (n, dim) points as far from each other as the vectors' rows of similarities are.

    colpali-engine clusters the rows of V V', n numbers each. The distance of two rows is
    |(v - w) V'|, the length of (v - w) R for any R with R R' = V'V: `dim` numbers do.
    """
    rows = torch.from_numpy(vectors).double()
    variances, axes = torch.linalg.eigh(rows.T @ rows)
    points: NDArray[np.float64] = (rows @ (axes * variances.clamp(min=0).sqrt())).numpy()
    return points
