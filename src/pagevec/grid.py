"""The patch grid of a page: how the Qwen families cut a page into visual tokens. Pure arithmetic.

The page is resized to whole cells (28 x 28 pixels in ColQwen2.5) within a number of pixels, and
each cell gives one visual token, row by row. The rule is `smart_resize` of transformers'
Qwen2-VL image processor.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PatchGrid:
    """Where a page's visual tokens are in its multi-vector.

    Attributes:
        rows: rows of cells.
        columns: cells in a row.
        first: index of the vector of the upper left cell. The others follow row by row, so
            `vectors[first : first + rows * columns]` covers the page.
    """

    rows: int
    columns: int
    first: int

    @property
    def cells(self) -> int:
        """The number of visual tokens."""
        return self.rows * self.columns


@dataclass(frozen=True)
class PageResizing:
    """How a model resizes pages; a service answers it in `/info` as `resizing`.

    Attributes:
        cell: side in pixels of a cell, which one visual token covers.
        min_pixels: of a resized page.
        max_pixels: of a resized page.
        first: index of the first visual token in a multi-vector.
        max_ratio: of the sides; a longer page is padded with white to this ratio first.
    """

    cell: int
    min_pixels: int
    max_pixels: int
    first: int
    max_ratio: int

    def padded(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of a page after padding to the side ratio."""
        return max(width, -(-height // self.max_ratio)), max(height, -(-width // self.max_ratio))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) in pixels that the model sees of a page of this size."""
        width, height = self.padded(width, height)
        wide, high = self._whole(width), self._whole(height)
        if wide * high > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            wide = max(self.cell, math.floor(width / shrink / self.cell) * self.cell)
            high = max(self.cell, math.floor(height / shrink / self.cell) * self.cell)
        elif wide * high < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            wide = math.ceil(width * grow / self.cell) * self.cell
            high = math.ceil(height * grow / self.cell) * self.cell
        return wide, high

    def grid(self, width: int, height: int) -> PatchGrid:
        """Return the grid of a page of this size."""
        wide, high = self.resized(width, height)
        return PatchGrid(high // self.cell, wide // self.cell, self.first)

    def _whole(self, side: int) -> int:
        return round(side / self.cell) * self.cell
