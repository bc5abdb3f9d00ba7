"""What goes into the vision tower: bytes of patches, and where on the page they are."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import embedding_bag, linear

from pagevec.engine.backends.packed.layers import joined
from pagevec.engine.backends.packed.positions import PageTables

_CENTRE = 128  # of a byte; pixels less this are exact in bfloat16, and small
_WHITE = 255


class PatchEmbedding:
    """Bytes of patches -> hidden vectors: normalising and both frames are in one matrix.

    A page is the same frame twice: the two halves of the patch kernel are added once. Mean and
    deviation of the pixels are part of the matrix and its bias, so bytes go in as they are.
    """

    def __init__(self, proj: Any, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Fold the kernel of `proj` (hidden, 3, frames, side, side), and its bias."""
        kernel = proj.weight.detach().float().sum(dim=2)
        scale = 1 / (_WHITE * torch.tensor(deviation, device=kernel.device))
        shift = (_CENTRE / _WHITE - torch.tensor(mean, device=kernel.device)) * _WHITE * scale
        bias = (kernel * shift[:, None, None]).sum(dim=(1, 2, 3))
        if proj.bias is not None:
            bias += proj.bias.detach()
        self._bias = bias.to(proj.weight.dtype)
        self._weight = (kernel * scale[:, None, None]).flatten(1).to(proj.weight.dtype)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Map uint8 (patches, 3 x side x side) to (patches, hidden)."""
        centred = patches.to(self._weight.dtype).sub_(_CENTRE)
        return linear(centred, self._weight, self._bias)


class LearnedPositions:
    """A square grid of learned vectors, stretched over the grid of each page."""

    def __init__(self, embedding: Any) -> None:
        self._grid = embedding.weight.detach().float()

    def __call__(self, tables: Sequence[PageTables]) -> torch.Tensor:
        """Return float32 (patches of all pages, hidden)."""
        around, weights = joined([one.places for one in tables if one.places is not None])
        return embedding_bag(around, self._grid, mode="sum", per_sample_weights=weights)
