"""Cached indices and rotary angles, which depend on a page's shape or a text's length alone."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from pagevec.engine.backends.packed.layers import CosSin, Pair, rotary_cos_sin
from pagevec.engine.backends.packed.segments import Segments

_CACHED_PAGES = 64  # each takes 1 to 2 MB in a model of 3 billion parameters
_CACHED_TOKENS = 512  # of texts, at first

Shape = tuple[int, int]
"""Rows and columns of a page's patches; a cell is 2 x 2 of them."""


@dataclass(frozen=True, eq=False)
class TextPositions:
    """What a sequence of one length needs besides its tokens.

    Attributes:
        cos_sin: rotary angles of its tokens.
        segments: the sequence as a pack of one.
    """

    cos_sin: CosSin
    segments: Segments


@dataclass(frozen=True, eq=False)
class PagePositions(TextPositions):
    """What a page of one shape needs besides its pixels.

    Attributes:
        input_ids: tokens of the page's sequence, int64 (tokens,).
        visual_tokens: indices of the visual ones among them, int64 (cells,).
        patch_order: the order in which patches go through the vision tower, int64 (patches,):
            window by window, windows of equal size side by side.
        cell_order: where each cell of the grid, row by row, is in that order, int64 (cells,).
        windows: segments of the layers with windowed attention.
        page: segments of the layers with full attention.
        vision_cos_sin: rotary angles of the patches, in that order.
        interpolation: the four neighbours of each patch on the tower's grid of learned positions,
            int64 (patches, 4), and their weights, float32 (patches, 4). None for a tower without
            learned positions.
    """

    input_ids: torch.Tensor
    visual_tokens: torch.Tensor
    patch_order: torch.Tensor
    cell_order: torch.Tensor
    windows: Segments
    page: Segments
    vision_cos_sin: CosSin
    interpolation: Pair | None


class PositionCache:
    """The positions of the latest page shapes and of texts, on the model's device."""

    def __init__(
        self,
        model: Any,
        device: torch.device,
        prompt: torch.Tensor,
        *,
        has_grid_positions: bool = True,
    ) -> None:
        """Prepare for the pages and texts of one model.

        Args:
            model: the backbone: a model of transformers.
            device: where the positions are needed.
            prompt: tokens of any page, int64 (tokens,): visual ones between two parts of text.
            has_grid_positions: whether the language model sees a page's cells on their grid, or in
                a row, as text.
        """
        self._has_grid_positions = has_grid_positions
        self._model = model
        self._device = device
        self._image_token = model.config.image_token_id
        cells = (prompt == self._image_token).nonzero().flatten().tolist()
        self._before, self._after = prompt[: cells[0]], prompt[cells[-1] + 1 :]
        self.of_page = lru_cache(_CACHED_PAGES)(self._locate_page)
        self._text_cos_sin = self._rotate_text(_CACHED_TOKENS)

    def of_text(self, length: int) -> TextPositions:
        """Return the positions of a text of `length` tokens: views of those of the longest text."""
        cos, sin = self._text_cos_sin
        if length > len(cos):
            cos, sin = self._text_cos_sin = self._rotate_text(1 << (length - 1).bit_length())
        return TextPositions((cos[:length], sin[:length]), Segments((length,), self._device))

    def _locate_page(self, shape: Shape) -> PagePositions:
        vision = self._model.visual
        merge = vision.spatial_merge_size
        grid = torch.tensor([[1, *shape]])
        order, lengths = _order_by_window(vision, grid)
        unit = torch.arange(merge**2)
        patches = (order[:, None] * merge**2 + unit).flatten()
        positions = get_vision_position_ids(grid, merge)[patches]
        first, cells = len(self._before), len(order)
        image = torch.full((cells,), self._image_token)
        ids = torch.cat([self._before, image, self._after])
        return PagePositions(
            cos_sin=self._rotate(self._place_tokens(shape[0] // merge, shape[1] // merge)),
            segments=Segments((len(ids),), self._device),
            input_ids=ids.to(self._device),
            visual_tokens=torch.arange(first, first + cells).to(self._device),
            patch_order=patches.to(self._device),
            cell_order=order.argsort().to(self._device),
            windows=Segments(lengths, self._device),
            page=Segments((len(patches),), self._device),
            vision_cos_sin=rotary_cos_sin(vision.rotary_pos_emb, positions.to(self._device)),
            interpolation=_interpolate(vision, grid, patches, self._device),
        )

    def _place_tokens(self, rows: int, columns: int) -> torch.Tensor:
        """Return the position of a page's tokens in time, down and across: int64 (3, 1, tokens).

        Text advances in all three. The cells are on their grid at one time, and the text after them
        begins beyond the longer side (M-RoPE, Wang et al. 2024, "Qwen2-VL").
        """
        first = len(self._before)
        if not self._has_grid_positions:
            return _in_a_row(first + rows * columns + len(self._after))
        beyond = first + max(rows, columns)
        grid = torch.cartesian_prod(*(torch.arange(side) for side in (1, rows, columns)))
        before = torch.arange(first).expand(3, -1)
        after = torch.arange(beyond, beyond + len(self._after)).expand(3, -1)
        return torch.cat([before, first + grid.T, after], dim=1)[:, None]

    def _rotate_text(self, length: int) -> CosSin:
        return self._rotate(_in_a_row(length))

    def _rotate(self, positions: torch.Tensor) -> CosSin:
        return rotary_cos_sin(self._model.get_decoder().rotary_emb, positions.to(self._device))


def _in_a_row(length: int) -> torch.Tensor:
    return torch.arange(length).expand(3, 1, -1)


def _interpolate(
    vision: Any, grid: torch.Tensor, patches: torch.Tensor, device: torch.device
) -> Pair | None:
    if not hasattr(vision, "pos_embed"):
        return None
    neighbours, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=vision.num_grid_per_side,
        mode=vision.interpolation_mode,
        align_corners=vision.interpolation_align_corners,
        spatial_merge_size=vision.spatial_merge_size,
    )
    return neighbours[patches].to(device), weights[patches].to(device)


def _order_by_window(vision: Any, grid: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return the cells window by window, the largest windows first, and patches of each window."""
    merge = vision.spatial_merge_size
    cells = int(grid.prod()) // merge**2
    if not getattr(vision.config, "window_size", None):
        return torch.arange(cells), (cells * merge**2,)
    order, cu_seqlens = get_vision_window_index(grid, merge, vision.window_size, vision.patch_size)
    sizes = (cu_seqlens.diff() // merge**2).tolist()
    windows = sorted(order.split(sizes), key=len, reverse=True)
    return torch.cat(windows), tuple(len(window) * merge**2 for window in windows)
