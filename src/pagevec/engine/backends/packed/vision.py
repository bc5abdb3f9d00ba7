"""The vision tower over packed patches: pixels of pages in, one vector for each cell out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from pagevec.engine.backends.packed.embedding import LearnedPositions, PatchEmbedding
from pagevec.engine.backends.packed.layers import (
    Activation,
    Product,
    Turns,
    joined,
    mlp_of,
    norm_of,
    rotate,
)
from pagevec.engine.backends.packed.positions import PageTables
from pagevec.engine.backends.packed.segments import Segments, attend

# On a CPU windows go through the layers a few at a time: what a layer makes stays in the caches.
_PATCHES_ON_CPU = 2048


class Merger:
    """Cells of 2 x 2 patches: a norm over patches, then an MLP over cells."""

    def __init__(self, merger: Any) -> None:
        self._norm, self._cell = norm_of(merger.ln_q), merger.hidden_size
        self._mlp: Activation = merger.mlp

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Map (patches, hidden) to (cells, hidden of the language model)."""
        return self._mlp(self._norm(patches).view(-1, self._cell))


def merger_of(module: Any) -> Activation:
    """Return what does the work of a merger of transformers; Qwen3's does it as well."""
    return Merger(module) if hasattr(module, "ln_q") else module


class _Block:
    def __init__(self, block: Any) -> None:
        self._norm, self._second_norm = norm_of(block.norm1), norm_of(block.norm2)
        self._qkv, self._out = _qkv_of(block.attn), Product(block.attn.proj)
        self._heads = block.attn.num_heads
        self._mlp = mlp_of(block.mlp)

    def __call__(self, hidden: torch.Tensor, turns: Turns, segments: Segments) -> None:
        """Overwrite (patches, hidden) with the layer's output."""
        qkv = self._qkv(self._norm(hidden)).view(len(hidden), 3, self._heads, -1)
        query, key = rotate(qkv[:, :2], turns).unbind(1)
        hidden += self._out(attend(query, key, qkv[:, 2], segments))
        hidden += self._mlp(self._second_norm(hidden))


@dataclass(frozen=True)
class _Stage:
    """Neighbouring blocks that attend alike: to the whole page, or to their window.

    `merger` merges patches behind the last of them, where that is done.
    """

    full: bool
    blocks: list[_Block]
    merger: Activation | None


class VisionTower:
    """The vision transformer of Qwen2 to Qwen3, merging 2 x 2 patches into a cell.

    Qwen3's merges them behind some of its blocks, too (DeepStack, Meng et al. 2024).
    """

    def __init__(self, visual: Any, images: Any) -> None:
        """Take the module of transformers, and the image processor for mean and deviation."""
        self._embed = PatchEmbedding(visual.patch_embed.proj, images.image_mean, images.image_std)
        has_learned = hasattr(visual, "pos_embed")
        self._positions = LearnedPositions(visual.pos_embed) if has_learned else None
        self._stages = list(_stages(visual))
        self._merger = merger_of(visual.merger)
        self._patch, self._merge = visual.patch_embed.patch_size, visual.spatial_merge_size

    def __call__(
        self, pages: Sequence[torch.Tensor], tables: Sequence[PageTables]
    ) -> list[torch.Tensor]:
        """Return (cells of all pages, hidden) for resized pages, uint8 (3, height, width).

        What the last block gives comes first; behind it, of the same shape, what blocks before it
        gave, in their order.
        """
        patches = torch.cat([self._cut(*pair) for pair in zip(pages, tables, strict=True)])
        hidden = self._embed(patches)
        if self._positions is not None:
            hidden += self._positions(tables)
        turns = joined([one.vision_turns for one in tables])
        windows = Segments.joined(one.windows for one in tables)
        whole = Segments.joined(one.page for one in tables)
        deep = []
        for stage in self._stages:
            _run(stage.blocks, hidden, turns, whole if stage.full else windows)
            if stage.merger is not None:
                deep.append(stage.merger(hidden))
        return [_row_by_row(merged, tables) for merged in (self._merger(hidden), *deep)]

    def _cut(self, page: torch.Tensor, tables: PageTables) -> torch.Tensor:
        """Cut a page into patches (patches, 3 x side x side), in the order of `tables`."""
        side = self._merge * self._patch
        rows, columns = page.shape[1] // side, page.shape[2] // side
        cells = page.reshape(3, rows, self._merge, self._patch, columns, self._merge, self._patch)
        patches = cells.permute(1, 4, 2, 5, 0, 3, 6).flatten(4).flatten(0, 3)
        return patches[tables.patches]


def _qkv_of(attention: Any) -> Product:
    """Return query, key and value as one product, whether the module has one layer or three."""
    if hasattr(attention, "qkv"):
        return Product(attention.qkv)
    return Product(attention.q, attention.k, attention.v)


def _stages(visual: Any) -> Iterator[_Stage]:
    numbers = range(len(visual.blocks))
    full = getattr(visual, "fullatt_block_indexes", numbers)
    deep = _deep_mergers(visual)
    alike = groupby(numbers, key=lambda number: (number in full, sum(at < number for at in deep)))
    for (is_full, _), run in alike:
        stage = list(run)
        blocks = [_Block(visual.blocks[number]) for number in stage]
        yield _Stage(is_full, blocks, deep.get(stage[-1]))


def _deep_mergers(visual: Any) -> dict[int, Activation]:
    """Return what merges patches behind a block, by its number, where the tower has that."""
    if not hasattr(visual, "deepstack_merger_list"):
        return {}
    return dict(zip(visual.deepstack_visual_indexes, visual.deepstack_merger_list, strict=True))


def _run(blocks: Sequence[_Block], hidden: torch.Tensor, turns: Turns, segments: Segments) -> None:
    """Overwrite (patches, hidden) with the output of several layers."""
    # Elsewhere all at once: the segments themselves keep their bounds from stage to stage.
    whole = [(slice(None), segments)]
    pieces = segments.pieces(_PATCHES_ON_CPU) if hidden.device.type == "cpu" else whole
    cos, sin = turns
    for part, sequences in pieces:
        for block in blocks:
            block(hidden[part], (cos[part], sin[part]), sequences)


def _row_by_row(merged: torch.Tensor, tables: Sequence[PageTables]) -> torch.Tensor:
    """Bring the cells of each page back from the order of windows."""
    parts = torch.split(merged, [len(one.cells) for one in tables])
    return torch.cat([part[one.cells] for part, one in zip(parts, tables, strict=True)])
