"""The vision tower over packed patches: pixels of pages in, one vector for each cell out."""

from collections.abc import Container, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import linear

from pagevec.engine.packed.attention import Segments, attend
from pagevec.engine.packed.grids import PageTables
from pagevec.engine.packed.layers import Product, Turns, joined, mlp_of, norm_of, rotate

_CENTRE = 128  # of a byte; pixels less this are exact in bfloat16, and small
_WHITE = 255
# On a CPU windows go through the layers a few at a time: what a layer makes stays in the caches.
_PATCHES_ON_CPU = 2048


class PatchEmbedding:
    """Bytes of patches -> hidden vectors: normalising and both frames are in one matrix.

    A page is the same frame twice: the two halves of the patch kernel are added once. Mean and
    deviation of the pixels are part of the matrix and its bias, so bytes go in as they are.
    """

    def __init__(
        self, weight: torch.Tensor, mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        """Fold the kernel `weight` (hidden, 3, 2, 14, 14)."""
        kernel = weight.detach().float().sum(dim=2)
        scale = 1 / (_WHITE * torch.tensor(deviation, device=kernel.device))
        shift = (_CENTRE / _WHITE - torch.tensor(mean, device=kernel.device)) * _WHITE * scale
        self._bias = (kernel * shift[:, None, None]).sum(dim=(1, 2, 3)).to(weight.dtype)
        self._weight = (kernel * scale[:, None, None]).flatten(1).to(weight.dtype)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Map uint8 (patches, 3 x 14 x 14) to (patches, hidden)."""
        centred = patches.to(self._weight.dtype).sub_(_CENTRE)
        return linear(centred, self._weight, self._bias)


class _Block:
    def __init__(self, block: Any) -> None:
        self._norm, self._second_norm = norm_of(block.norm1), norm_of(block.norm2)
        self._qkv, self._out = Product(block.attn.qkv), Product(block.attn.proj)
        self._heads = block.attn.num_heads
        self._mlp = mlp_of(block.mlp)

    def __call__(self, hidden: torch.Tensor, turns: Turns, segments: Segments) -> None:
        """Overwrite (patches, hidden) with the layer's output."""
        qkv = self._qkv(self._norm(hidden)).view(len(hidden), 3, self._heads, -1)
        query, key = rotate(qkv[:, :2], turns).unbind(1)
        hidden += self._out(attend(query, key, qkv[:, 2], segments))
        hidden += self._mlp(self._second_norm(hidden))


class VisionTower:
    """Qwen2's and Qwen2.5's vision transformer, merging 2 x 2 patches into a cell at its end."""

    def __init__(self, visual: Any, images: Any) -> None:
        """Take the module of transformers, and the image processor for mean and deviation."""
        self._embed = PatchEmbedding(
            visual.patch_embed.proj.weight, images.image_mean, images.image_std
        )
        blocks = [_Block(block) for block in visual.blocks]
        self._norm = norm_of(visual.merger.ln_q)
        self._merger = visual.merger
        full = getattr(visual, "fullatt_block_indexes", range(len(blocks)))
        self._stages = _stages(blocks, full)
        self._patch, self._merge = visual.patch_embed.patch_size, visual.spatial_merge_size

    def __call__(self, pages: Sequence[torch.Tensor], tables: Sequence[PageTables]) -> torch.Tensor:
        """Return (cells of all pages, hidden) for resized pages, uint8 (3, height, width)."""
        patches = torch.cat([self._cut(*pair) for pair in zip(pages, tables, strict=True)])
        hidden = self._embed(patches)
        turns = joined([one.vision_turns for one in tables])
        windows = Segments.joined(one.windows for one in tables)
        whole = Segments.joined(one.page for one in tables)
        for is_full, blocks in self._stages:
            _run(blocks, hidden, turns, whole if is_full else windows)
        merged = self._merger.mlp(self._norm(hidden).view(-1, self._merger.hidden_size))
        return _row_by_row(merged, tables)

    def _cut(self, page: torch.Tensor, tables: PageTables) -> torch.Tensor:
        """Cut a page into patches (patches, 3 x 14 x 14), in the order of `tables`."""
        side = self._merge * self._patch
        rows, columns = page.shape[1] // side, page.shape[2] // side
        cells = page.reshape(3, rows, self._merge, self._patch, columns, self._merge, self._patch)
        patches = cells.permute(1, 4, 2, 5, 0, 3, 6).flatten(4).flatten(0, 3)
        return patches[tables.patches]


def _stages(blocks: Sequence[_Block], full: Container[int]) -> list[tuple[bool, list[_Block]]]:
    """Put neighbours together that attend alike: to the whole page, or to their window."""
    alike = groupby(enumerate(blocks), key=lambda numbered: numbered[0] in full)
    return [(is_full, [block for _, block in run]) for is_full, run in alike]


def _run(blocks: Sequence[_Block], hidden: torch.Tensor, turns: Turns, segments: Segments) -> None:
    """Overwrite (patches, hidden) with the output of several layers."""
    most = _PATCHES_ON_CPU if hidden.device.type == "cpu" else len(hidden)
    cos, sin = turns
    for part, sequences in segments.pieces(most):
        for block in blocks:
            block(hidden[part], (cos[part], sin[part]), sequences)


def _row_by_row(merged: torch.Tensor, tables: Sequence[PageTables]) -> torch.Tensor:
    """Bring the cells of each page back from the order of windows."""
    parts = torch.split(merged, [len(one.cells) for one in tables])
    return torch.cat([part[one.cells] for part, one in zip(parts, tables, strict=True)])
