"""The vision tower over a pack of patches: pixels of pages in, one vector for each cell out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from pagevec.engine.backends.packed.inputs import LearnedPositions, PatchEmbedding
from pagevec.engine.backends.packed.layers import (
    Activation,
    CosSin,
    FusedLinear,
    apply_rotary,
    build_mlp,
    build_norm,
    concatenate,
)
from pagevec.engine.backends.packed.positions import PagePositions
from pagevec.engine.backends.packed.segments import Segments, attend

# On a CPU a few windows at a time go through the layers, so that activations stay in its caches.
_PATCHES_ON_CPU = 2048


class Merger:
    """Merges 2 x 2 patches into a cell: a norm over patches, then an MLP over cells."""

    def __init__(self, merger: Any) -> None:
        self._norm, self._cell = build_norm(merger.ln_q), merger.hidden_size
        self._mlp: Activation = merger.mlp

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Map (patches, vision hidden) to (cells, language hidden)."""
        return self._mlp(self._norm(patches).view(-1, self._cell))


def _build_merger(module: Any) -> Activation:
    # Qwen3's own merger takes a pack already.
    return Merger(module) if hasattr(module, "ln_q") else module


class Block:
    """A layer of the vision tower."""

    def __init__(self, block: Any) -> None:
        self._norm, self._second_norm = build_norm(block.norm1), build_norm(block.norm2)
        self._qkv, self._out = _fuse_qkv(block.attn), FusedLinear(block.attn.proj)
        self._heads = block.attn.num_heads
        self._mlp = build_mlp(block.mlp)

    def __call__(self, hidden: torch.Tensor, cos_sin: CosSin, segments: Segments) -> None:
        """Overwrite `hidden`, (patches, hidden), with the layer's output."""
        qkv = self._qkv(self._norm(hidden)).view(len(hidden), 3, self._heads, -1)
        query, key = apply_rotary(qkv[:, :2], cos_sin).unbind(1)
        hidden += self._out(attend(query, key, qkv[:, 2], segments))
        hidden += self._mlp(self._second_norm(hidden))


@dataclass(frozen=True)
class _Stage:
    """Neighbouring blocks with the same kind of attention.

    Attributes:
        full: whether patches attend to the whole page, rather than to their window.
        blocks: the blocks, in order.
        merger: merges the output of the last block into deep features, where the tower has those.
    """

    full: bool
    blocks: list[Block]
    merger: Activation | None


class VisionTower:
    """The vision transformer of Qwen2 to Qwen3, which merges 2 x 2 patches into a cell.

    Qwen3's also merges the output of some of its blocks (DeepStack, Meng et al. 2024).
    """

    def __init__(self, visual: Any, processor: Any) -> None:
        """Fuse the layers of a vision tower.

        Args:
            visual: the module of transformers.
            processor: the image processor, for mean and standard deviation of the pixels.
        """
        self._embed = PatchEmbedding(
            visual.patch_embed.proj, processor.image_mean, processor.image_std
        )
        has_learned = hasattr(visual, "pos_embed")
        self._positions = LearnedPositions(visual.pos_embed) if has_learned else None
        self._stages = list(_stages(visual))
        self._merger = _build_merger(visual.merger)
        self._patch, self._merge = visual.patch_embed.patch_size, visual.spatial_merge_size

    def __call__(
        self, pages: Sequence[torch.Tensor], positions: Sequence[PagePositions]
    ) -> list[torch.Tensor]:
        """Embed resized pages.

        Args:
            pages: uint8 (3, height, width) each.
            positions: those of each page.

        Returns:
            (cells of all pages, hidden): the output of the last block first, then the deep
            features, each of this shape.
        """
        patches = torch.cat([self._cut(*pair) for pair in zip(pages, positions, strict=True)])
        hidden = self._embed(patches)
        if self._positions is not None:
            hidden += self._positions(positions)
        cos_sin = concatenate([one.vision_cos_sin for one in positions])
        windows = Segments.concatenate(one.windows for one in positions)
        page = Segments.concatenate(one.page for one in positions)
        deep = []
        for stage in self._stages:
            _run(stage.blocks, hidden, cos_sin, page if stage.full else windows)
            if stage.merger is not None:
                deep.append(stage.merger(hidden))
        return [_order_by_row(merged, positions) for merged in (self._merger(hidden), *deep)]

    def _cut(self, page: torch.Tensor, positions: PagePositions) -> torch.Tensor:
        """Cut a page into patches, (patches, 3 x side x side), in their order in the tower."""
        side = self._merge * self._patch
        rows, columns = page.shape[1] // side, page.shape[2] // side
        cells = page.reshape(3, rows, self._merge, self._patch, columns, self._merge, self._patch)
        patches = cells.permute(1, 4, 2, 5, 0, 3, 6).flatten(4).flatten(0, 3)
        return patches[positions.patch_order]


def _fuse_qkv(attention: Any) -> FusedLinear:
    if hasattr(attention, "qkv"):
        return FusedLinear(attention.qkv)
    return FusedLinear(attention.q, attention.k, attention.v)


def _stages(visual: Any) -> Iterator[_Stage]:
    numbers = range(len(visual.blocks))
    full = getattr(visual, "fullatt_block_indexes", numbers)
    deep = _deep_mergers(visual)
    alike = groupby(numbers, key=lambda number: (number in full, sum(at < number for at in deep)))
    for (is_full, _), run in alike:
        stage = list(run)
        blocks = [Block(visual.blocks[number]) for number in stage]
        yield _Stage(is_full, blocks, deep.get(stage[-1]))


def _deep_mergers(visual: Any) -> dict[int, Activation]:
    """Return the mergers of deep features by the number of their block, where there are some."""
    if not hasattr(visual, "deepstack_merger_list"):
        return {}
    return dict(zip(visual.deepstack_visual_indexes, visual.deepstack_merger_list, strict=True))


def _run(
    blocks: Sequence[Block], hidden: torch.Tensor, cos_sin: CosSin, segments: Segments
) -> None:
    """Overwrite `hidden`, (patches, hidden), with the output of several layers."""
    # Whole on other devices, also because `segments` then computes cu_seqlens only once.
    whole = [(slice(None), segments)]
    parts = segments.split(_PATCHES_ON_CPU) if hidden.device.type == "cpu" else whole
    cos, sin = cos_sin
    for part, sequences in parts:
        for block in blocks:
            block(hidden[part], (cos[part], sin[part]), sequences)


def _order_by_row(merged: torch.Tensor, positions: Sequence[PagePositions]) -> torch.Tensor:
    """Bring the cells of each page from the order of windows into that of rows."""
    parts = torch.split(merged, [len(one.cell_order) for one in positions])
    return torch.cat([part[one.cell_order] for part, one in zip(parts, positions, strict=True)])
