"""Inputs that are ready for a pack: the bytes of a resized page, or the tokens of a text."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pagevec.engine.backends.packed.positions import Shape
from pagevec.engine.backends.preprocess import Preprocessor


@dataclass(frozen=True, eq=False)
class PackedPage:
    """A page as the model sees it.

    Attributes:
        tokens: of its sequence, visual and text tokens.
        pixels: uint8 (3, height, width), resized as the family's own processor does.
        shape: rows and columns of its patches.
    """

    tokens: int
    pixels: torch.Tensor
    shape: Shape


class PackedPreprocessor(Preprocessor):
    """Resizes pages with a checkpoint's own processor, and leaves the rest to the device."""

    @property
    def images(self) -> Any:
        """The image processor."""
        return self._for_pages.image_processor

    @property
    def prompt(self) -> torch.Tensor:
        """The tokens of a small page, int64 (tokens,)."""
        return self.tiny.sequence["input_ids"]

    def _prepare_page(self, image: Image.Image) -> PackedPage:
        images = self.images
        pixels = images.resize(
            images.process_image(image)[None],
            size=images.size,
            resample=images.resample,
            factor=images.patch_size * images.merge_size,
        )[0]
        rows, columns = (side // images.patch_size for side in pixels.shape[1:])
        cells = rows * columns // images.merge_size**2
        return PackedPage(self._prompt_tokens + cells, pixels, (rows, columns))
