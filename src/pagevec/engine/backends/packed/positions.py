"""What depends on a page's grid alone, and on the length of a text: computed once, and kept."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from pagevec.engine.backends.packed.layers import Pair, Turns, turns_of
from pagevec.engine.backends.packed.segments import Segments

# Grids that are kept: a page's tables take 1 to 2 MB in a model of 3 billion parameters.
_KEPT = 64

Shape = tuple[int, int]
"""Rows and columns of a page's patches; a cell is 2 x 2 of them."""


@dataclass(frozen=True, eq=False)
class PageTables:
    """All that a page of one shape needs besides its pixels.

    Attributes:
        patches: the order in which patches go through the vision tower: window by window, windows
            of equal size beside each other; int64 (patches,).
        windows, page: which patches attend to each other, in most layers and in the others.
        vision_turns: rotary angles of the patches in that order.
        places: where they lie on the tower's grid of learned positions: the four around each, and
            the weight of each of these; (patches, 4) both. None where it has learned none.
        cells: where in that order each cell of the grid is, row by row; int64 (cells,).
        ids: the sequence's tokens, int64 (tokens,); visual: which of them are cells, (cells,).
        turns: rotary angles of the sequence's tokens; sequence: its length.
    """

    patches: torch.Tensor
    windows: Segments
    page: Segments
    vision_turns: Turns
    places: Pair | None
    cells: torch.Tensor
    ids: torch.Tensor
    visual: torch.Tensor
    turns: Turns
    sequence: Segments


@dataclass(frozen=True, eq=False)
class TextTables:
    """All that a text of one length needs besides its tokens."""

    turns: Turns
    sequence: Segments


class Tables:
    """The tables of a model; those of the latest shapes and lengths are kept on its device."""

    def __init__(self, model: Any, device: torch.device, prompt: torch.Tensor) -> None:
        """Take the tokens of any page as `prompt`: its cells stand between two parts of text."""
        self._model = model
        self._device = device
        self._image_token = model.config.image_token_id
        cells = (prompt == self._image_token).nonzero().flatten().tolist()
        self._before, self._after = prompt[: cells[0]], prompt[cells[-1] + 1 :]
        self.of_page = lru_cache(_KEPT)(self._page)
        self.of_text = lru_cache(_KEPT)(self._text)

    def _page(self, shape: Shape) -> PageTables:
        vision = self._model.visual
        merge = vision.spatial_merge_size
        grid = torch.tensor([[1, *shape]])
        order, lengths = _windows(vision, grid)
        unit = torch.arange(merge**2)
        patches = (order[:, None] * merge**2 + unit).flatten()
        positions = get_vision_position_ids(grid, merge)[patches]
        first, cells = len(self._before), len(order)
        image = torch.full((cells,), self._image_token)
        ids = torch.cat([self._before, image, self._after])
        return PageTables(
            patches=patches.to(self._device),
            windows=Segments(lengths, self._device),
            page=Segments((len(patches),), self._device),
            vision_turns=turns_of(vision.rotary_pos_emb, positions.to(self._device)),
            places=_places(vision, grid, patches, self._device),
            cells=order.argsort().to(self._device),
            ids=ids.to(self._device),
            visual=torch.arange(first, first + cells).to(self._device),
            turns=self._text_turns(self._positions(shape[0] // merge, shape[1] // merge)),
            sequence=Segments((len(ids),), self._device),
        )

    def _positions(self, rows: int, columns: int) -> torch.Tensor:
        """Return where a page's tokens are in time, down and across: int64 (3, 1, tokens).

        Text moves on in all three; cells stand on their grid at one time, and the text behind them
        begins beyond the longer side (M-RoPE, Wang et al. 2024, "Qwen2-VL").
        """
        first = len(self._before)
        beyond = first + max(rows, columns)
        grid = torch.cartesian_prod(*(torch.arange(side) for side in (1, rows, columns)))
        before = torch.arange(first).expand(3, -1)
        after = torch.arange(beyond, beyond + len(self._after)).expand(3, -1)
        return torch.cat([before, first + grid.T, after], dim=1)[:, None]

    def _text(self, length: int) -> TextTables:
        positions = torch.arange(length).expand(3, 1, -1)
        return TextTables(self._text_turns(positions), Segments((length,), self._device))

    def _text_turns(self, positions: torch.Tensor) -> Turns:
        return turns_of(self._model.get_decoder().rotary_emb, positions.to(self._device))


def _places(
    vision: Any, grid: torch.Tensor, patches: torch.Tensor, device: torch.device
) -> Pair | None:
    if not hasattr(vision, "pos_embed"):
        return None
    around, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=vision.num_grid_per_side,
        mode=vision.interpolation_mode,
        align_corners=vision.interpolation_align_corners,
        spatial_merge_size=vision.spatial_merge_size,
    )
    return around[patches].to(device), weights[patches].to(device)


def _windows(vision: Any, grid: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return the cells window by window, the largest windows first, and patches of each window."""
    merge = vision.spatial_merge_size
    cells = int(grid.prod()) // merge**2
    if not getattr(vision.config, "window_size", None):
        return torch.arange(cells), (cells * merge**2,)
    order, bounds = get_vision_window_index(grid, merge, vision.window_size, vision.patch_size)
    sizes = (bounds.diff() // merge**2).tolist()
    windows = sorted(order.split(sizes), key=len, reverse=True)
    return torch.cat(windows), tuple(len(window) * merge**2 for window in windows)
