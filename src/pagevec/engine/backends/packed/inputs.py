"""What goes into the vision tower: the pixels of a resized page, and their embedding as patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import embedding_bag, linear

from pagevec.engine.backends.packed.layers import concatenate
from pagevec.engine.backends.packed.positions import PagePositions, Shape

_CENTRE = 128  # of a byte; pixels less this are exact in bfloat16, and small
_WHITE = 255


@dataclass(frozen=True, eq=False)
class PackedPage:
    """A page, ready for a pack.

    Attributes:
        tokens: length of its sequence, visual and text tokens.
        pixels: uint8 (3, height, width), resized as the family's own processor does it.
        shape: rows and columns of its patches.
    """

    tokens: int
    pixels: torch.Tensor
    shape: Shape


def resize_page(image: Image.Image, processor: Any, prompt_tokens: int) -> PackedPage:
    """Resize a page with a checkpoint's own image processor; the device does the rest.

    Args:
        image: RGB, within the side ratio that the processor accepts.
        processor: the image processor.
        prompt_tokens: text tokens around the visual ones.
    """
    pixels = processor.resize(
        processor.process_image(image)[None],
        size=processor.size,
        resample=processor.resample,
        factor=processor.patch_size * processor.merge_size,
    )[0]
    rows, columns = (side // processor.patch_size for side in pixels.shape[1:])
    cells = rows * columns // processor.merge_size**2
    return PackedPage(prompt_tokens + cells, pixels, (rows, columns))


class PatchEmbedding:
    """Embeds patches of bytes: normalisation and both frames are folded into one matrix.

    A page is the same frame twice, so the two halves of the patch kernel are added once. Mean and
    standard deviation of the pixels are part of the matrix and its bias: bytes go in as they are.
    """

    def __init__(self, proj: Any, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Fold a patch embedding.

        Args:
            proj: module with a weight (hidden, 3, frames, side, side) and perhaps a bias (hidden,).
            mean: mean of each colour channel, for pixels from 0 to 1.
            deviation: standard deviation of each colour channel.
        """
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
    """A square grid of learned vectors, interpolated to the patch grid of each page."""

    def __init__(self, embedding: Any) -> None:
        self._grid = embedding.weight.detach().float()

    def __call__(self, positions: Sequence[PagePositions]) -> torch.Tensor:
        """Return float32 (patches of all pages, hidden)."""
        neighbours, weights = concatenate(
            [one.interpolation for one in positions if one.interpolation is not None]
        )
        return embedding_bag(neighbours, self._grid, mode="sum", per_sample_weights=weights)
