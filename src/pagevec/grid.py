"""The patch grid of a page: how the Qwen families cut a page into visual tokens.

The page is resized to whole cells (28 x 28 pixels in ColQwen2.5) within a number of pixels, and
each cell gives one visual token, row by row. The rule is `smart_resize` of transformers'
Qwen2-VL image processor.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_LONGEST_WEBP_SIDE = 16383

# A page is long if its sides differ more than this, and if the model would lose more of it than of
# a usual page: see `PageResizing.count_tiles`.
_LONG_RATIO = 4.0
_LOST_PIXELS = 4.0
_TILE_RATIO = math.sqrt(2)
_TILE_OVERLAP = 1 / 8
_MOST_TILES = 32


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

    def shrinks(self, width: int, height: int) -> bool:
        """Whether a page of this size can be made smaller without changing what the model sees."""
        wide, high = self.resized(width, height)
        # A size that the model would resize once more would change its vectors.
        return wide * high < width * height and self.resized(wide, high) == (wide, high)

    def count_tiles(self, width: int, height: int) -> int:
        """Return how many tiles a page of this size is cut into; 1 if it is seen as a whole.

        A page that is far longer than wide would be illegible: seen within as many pixels as any
        other page, it is a few dozen pixels wide.
        """
        if not is_illegible(width, height, self.max_pixels):
            return 1
        ratio = max(width, height) / min(width, height)
        more = math.floor((ratio / _TILE_RATIO - 1) / (1 - _TILE_OVERLAP))
        return min(_MOST_TILES, 1 + more)

    def resize(self, image: "Image.Image") -> "Image.Image":
        """Resize as transformers does: bicubic, antialiased, white added to a long page first."""
        from PIL import Image

        padded = self.padded(*image.size)
        if padded != image.size:
            canvas = Image.new("RGB", padded, "white")
            canvas.paste(image)
            image = canvas
        return image.resize(self.resized(*image.size), Image.Resampling.BICUBIC)

    def _whole(self, side: int) -> int:
        return round(side / self.cell) * self.cell


def is_illegible(width: int, height: int, visible_pixels: int) -> bool:
    """Whether a page is far longer than wide and loses most of its pixels when the model sees it.

    Args:
        width: of the page in pixels.
        height: of the page in pixels.
        visible_pixels: how many the model sees at most.
    """
    is_long = max(width, height) > _LONG_RATIO * min(width, height)
    return is_long and width * height > _LOST_PIXELS * visible_pixels


def cut_tiles(image: "Image.Image", count: int) -> "list[Image.Image]":
    """Cut a long page into `count` tiles of one size, each overlapping the next by an eighth."""
    width, height = image.size
    side = math.ceil(max(width, height) / _stretch(count))
    if height > width:
        starts = place_tiles(height, side, count)
        return [image.crop((0, top, width, top + side)) for top in starts]
    starts = place_tiles(width, side, count)
    return [image.crop((left, 0, left + side, height)) for left in starts]


def join_length(side: int, count: int) -> int:
    """Return the length of a page, in cells, whose `count` tiles are `side` cells long each."""
    return round(side * _stretch(count))


def place_tiles(length: int, side: int, count: int) -> list[int]:
    """Return where each of `count` tiles of length `side` begins on a page of this length."""
    return [place * (length - side) // (count - 1) for place in range(count)]


def _stretch(count: int) -> float:
    return 1 + (count - 1) * (1 - _TILE_OVERLAP)


def save_losslessly(image: "Image.Image") -> bytes:
    """Return an image file of `image`: WebP where that is possible, else PNG.

    WebP takes about half of PNG's bytes on resized pages. This is the fast end of its scale: more
    effort takes 2 to 5 times as long for 10 % fewer bytes.
    """
    from PIL import features

    file = BytesIO()
    if max(image.size) <= _LONGEST_WEBP_SIDE and features.check("webp"):
        image.save(file, "WEBP", lossless=True, method=1, quality=20)
    else:
        image.save(file, "PNG", compress_level=1)
    return file.getvalue()
