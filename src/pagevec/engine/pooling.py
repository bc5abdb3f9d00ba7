"""Token pooling: fewer vectors for each page, by merging similar ones."""

import torch

from pagevec.types import MultiVector


def pool(vectors: MultiVector, factor: int) -> MultiVector:
    """Merge (n, dim) into about n / `factor` unit vectors, at least one.

    This is colpali-engine's hierarchical pooler (Ward clusters of similar vectors, each replaced by
    its mean), which its authors evaluate in "Reducing the footprint of multi-vector retrieval"
    (Clavié, Chaffin, Adams, 2024).
    """
    if factor == 1 or len(vectors) < 2:
        return vectors
    from colpali_engine.compression.token_pooling import HierarchicalTokenPooler

    pooled = HierarchicalTokenPooler().pool_embeddings(
        [torch.from_numpy(vectors)], pool_factor=factor
    )
    result: MultiVector = pooled[0].numpy()
    return result
