"""Where on a page a query's tokens find their answer: the maps of the ColPali paper (section 5.3).

A map has one value for each cell of the page's patch grid: the similarity of one query token to
the visual token there.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import InvalidRequest
from pagevec.types import MultiVector, Page

if TYPE_CHECKING:
    from PIL import Image

_STRENGTH = 0.6  # of the colour where the map is highest; the page stays readable below it


def similarity_maps(query: MultiVector, page: Page) -> NDArray[np.float32]:
    """Return one map for each vector of `query`: float32 (query vectors, rows, columns).

    Raises:
        InvalidRequest: the page's patch grid is not known, or its vectors were pooled.
    """
    grid = page.grid
    if grid is None or len(page.vectors) < grid.first + grid.cells:
        raise InvalidRequest(
            f"{page.key.document}, page {page.key.number}: its patch grid is not known "
            "(it is a text, its vectors are pooled, or the model cuts pages into tiles)"
        )
    visual = page.vectors[grid.first : grid.first + grid.cells]
    maps: NDArray[np.float32] = (query @ visual.T).astype(np.float32)
    return maps.reshape(len(query), grid.rows, grid.columns)


def draw(values: NDArray[np.float32], image: "Image.Image") -> "Image.Image":
    """Lay one map (rows, columns) over the picture of its page: the redder, the more similar."""
    from PIL import Image

    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    mask = Image.fromarray(np.uint8(share**2 * _STRENGTH * 255))
    page = image.convert("RGB")
    colour = Image.new("RGB", page.size, (230, 30, 30))
    return Image.composite(colour, page, mask.resize(page.size, Image.Resampling.BICUBIC))
