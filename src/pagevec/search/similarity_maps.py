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

_SHARPNESS = 20.0  # of a softmax over cosines
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


def map_of_all(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one map (rows, columns) of those of all tokens: where on the page the score is won.

    MaxSim takes each token's best cell. Here each token has one share to give, and gives it to the
    cells by a softmax of its similarities: a token that is like the whole page (the empty margin,
    say) colours nothing, one with an answer colours that.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    weights = np.exp(_SHARPNESS * (flat - flat.max(axis=1, keepdims=True)))
    shares: NDArray[np.float64] = (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0)
    return shares.reshape(maps.shape[1:]).astype(np.float32)


def draw(values: NDArray[np.float32], image: "Image.Image") -> "Image.Image":
    """Lay one map (rows, columns) over the picture of its page: the redder, the more similar."""
    from PIL import Image

    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    mask = Image.fromarray(np.uint8(share**2 * _STRENGTH * 255))
    page = image.convert("RGB")
    colour = Image.new("RGB", page.size, (230, 30, 30))
    return Image.composite(colour, page, mask.resize(page.size, Image.Resampling.BICUBIC))
