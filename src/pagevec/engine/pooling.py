"""Token pooling: fewer vectors for each page, by merging similar ones."""

import numpy as np
from numpy.typing import NDArray

from pagevec.types import MultiVector

# SciPy holds the interpreter while it merges: for more vectors than this, too long for others.
_MOST_WITH_SCIPY = 1024


def pool(vectors: MultiVector, factor: int) -> MultiVector:
    """Merge similar vectors (Clavié, Chaffin, Adams 2024, "Reducing the footprint...").

    Hierarchical pooling: Ward clusters of similar vectors, each replaced by its mean. The clusters,
    and their order, are those of colpali-engine's pooler; of more than 1,024 vectors, pairs that
    are equally far apart may be merged in another order.

    Args:
        vectors: float32 (n, dim), rows of unit length.
        factor: how many vectors become one, on average.

    Returns:
        float32 (about n / `factor`, at least one, dim), rows of unit length.
    """
    if factor == 1 or len(vectors) < 2:
        return vectors
    clusters = _clusters(vectors, pooled_count(len(vectors), factor))
    sums = np.zeros((clusters.max() + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, clusters, vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: MultiVector = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return means


def pooled_count(vectors: int, factor: int) -> int:
    """Return how many vectors `pool` leaves of so many, at most."""
    return vectors if factor == 1 else max(vectors // factor, 1)


def pooling_bytes(vectors: int, dim: int) -> int:
    """Return the bytes that `pool` holds at its peak, at most, for vectors of `dim` components.

    First the vectors, points and axes in float64, then the distances of all pairs, twice: both
    libraries copy them before they merge.
    """
    numbers = min(vectors, dim)
    embedding = vectors * (dim + 2 * numbers) + 6 * numbers**2
    return 8 * (vectors * (vectors - 1) + embedding) + 1024 * vectors


def _clusters(vectors: MultiVector, most: int) -> NDArray[np.int32]:
    """Return each vector's cluster, int32 (n,), numbered from 0; at most `most` clusters."""
    from scipy.cluster.hierarchy import fcluster

    tree = _merge(_embed_similarities(vectors))
    numbers: NDArray[np.int32] = fcluster(tree, most, criterion="maxclust") - 1
    return numbers


def _merge(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the tree of Ward's method over `points` (n, dim), as SciPy encodes it: (n - 1, 4)."""
    from fastcluster import linkage as linkage_in_place
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    if len(points) <= _MOST_WITH_SCIPY:
        tree: NDArray[np.float64] = linkage(points, method="ward")
    else:
        tree = linkage_in_place(pdist(points), method="ward", preserve_input=False)
    return tree


def _embed_similarities(vectors: MultiVector) -> NDArray[np.float64]:
    """Return float64 points (n, n or dim), as far apart as the rows of the similarity matrix.

    colpali-engine clusters the rows of V V', n numbers each. The distance of two rows is
    |(v - w) V'|, which is the length of (v - w) R for any R with R R' = V'V: `dim` numbers suffice
    where these are fewer.
    """
    import torch  # whose number of threads is limited here, unlike that of numpy's BLAS

    rows = torch.from_numpy(vectors).double()
    if len(rows) <= rows.shape[1]:
        similarities: NDArray[np.float64] = (rows @ rows.T).numpy()
        return similarities
    variances, axes = torch.linalg.eigh(rows.T @ rows)
    points: NDArray[np.float64] = (rows @ (axes * variances.clamp(min=0).sqrt())).numpy()
    return points
