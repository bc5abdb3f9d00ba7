"""Initial weights: a tower that already looks at neighbours, as a convolution does.

From random weights a transformer spends its first hours learning which patches are next to each
other. With rotary positions, constant biases of queries and keys can encode it: the score of a pair
of patches then depends on their offset alone, and is highest at the offset that the biases are
made for.
"""

import numpy as np
import torch
from torch import nn

from training.crops import PATCH

# The offset (rows, columns) that each head of a layer looks at; None where it is left to learn.
Offset = tuple[float, float] | None
_VISION: tuple[tuple[Offset, ...], ...] = (
    ((0, -1), (0, 1), (-1, 0), (1, 0)),
    ((0, -1), (0, 1), (-1, 0), (1, 0)),
    ((0, -2), (0, 2), (0, 0), None),
    ((0, -3), (0, 3), None, None),
    ((0, -4), (0, 4), None, None),
)
# In a text, row and column are both the token's position: (-1, -1) is the letter before.
_LANGUAGE: tuple[tuple[Offset, ...], ...] = (
    ((-1, -1), (-2, -2), (-3, -3), (0, -1)),
    ((-4, -4), (-8, -8), (0, -2), None),
)
_SHARPNESS = 6.0  # of the score's peak: the patch next to the right one gets e^-3 of its weight


@torch.no_grad()
def look_at_neighbours(model: nn.Module) -> None:
    """Set the biases of queries and keys of a ColQwen2.5 to the offsets above."""
    visual = model.visual
    frequencies = visual.rotary_pos_emb.inv_freq
    axes = [0] * len(frequencies) + [1] * len(frequencies)
    for block, offsets in zip(visual.blocks, _VISION, strict=True):
        _fill(block)
        query, key, _ = block.attn.qkv.bias.view(3, len(offsets), -1).unbind(0)
        for head, offset in enumerate(offsets):
            _aim(query[head], key[head], offset, axes, frequencies.repeat(2))
    rotary = model.language_model.rotary_emb
    axes = [n % 3 - 1 for n, size in enumerate(rotary.mrope_section) for _ in range(size)]
    for layer, offsets in zip(model.language_model.layers, _LANGUAGE, strict=True):
        _fill(layer)
        attention = layer.self_attn
        queries = attention.q_proj.bias.view(len(offsets), -1)
        keys = attention.k_proj.bias.view(-1, queries.shape[1])
        for head, offset in enumerate(offsets):
            # Several heads share a key, so the offset has to be in the query.
            _aim(
                keys[head * len(keys) // len(offsets)],
                queries[head],
                offset,
                axes,
                rotary.inv_freq,
                -1,
            )


@torch.no_grad()
def see_in_waves(weight: torch.Tensor, pixels: torch.Tensor) -> None:
    """Set the patch embedding (hidden, 196) to the lowest cosine waves, each of unit variance.

    `pixels` are normalised patches (n, 196), from which the usual strength of each wave is taken.
    """
    place = np.arange(PATCH)
    waves = np.cos(np.pi * (place[None] + 0.5) * place[:, None] / PATCH)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    order = sorted(((v, h) for v in place for h in place), key=lambda two: (sum(two), two))
    both = np.stack([np.outer(waves[v], waves[h]).ravel() for v, h in order[: len(weight)]])
    directions = torch.from_numpy(both).float()
    strength = (pixels @ directions.T).std(0)
    weight.copy_(directions / (strength + 0.02 * strength.max())[:, None])


def _fill(layer: nn.Module) -> None:
    for matrix in (parameter for parameter in layer.parameters() if parameter.ndim == 2):
        nn.init.normal_(matrix, std=0.7 * matrix.shape[1] ** -0.5)


def _aim(fixed, turned, offset: Offset, axes, frequencies, sign: int = 1) -> None:
    """Make the score highest where the key is `offset` away from the query."""
    if offset is None:
        return
    half = len(fixed) // 2
    for pair, (axis, frequency) in enumerate(zip(axes, frequencies.tolist(), strict=True)):
        if axis < 0 or frequency < 0.25:
            continue
        height = (_SHARPNESS * len(fixed) ** 0.5 / (1 if len(axes) == 16 else 2)) ** 0.5
        angle = -sign * frequency * offset[axis]
        fixed[pair] = height
        turned[pair], turned[pair + half] = height * np.cos(angle), height * np.sin(angle)
