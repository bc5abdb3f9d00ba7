"""The language model over packed sequences: hidden vectors in, hidden vectors out."""

from collections.abc import Sequence
from typing import Any

import torch

from pagevec.engine.backends.packed.layers import (
    Product,
    Turns,
    head_norm_of,
    mlp_of,
    norm_of,
    rotate,
)
from pagevec.engine.backends.packed.segments import Segments, attend

Added = tuple[torch.Tensor, torch.Tensor]
"""Tokens of a pack, int64 (n,), and what is added to them, (n, hidden)."""


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self._norm = norm_of(layer.input_layernorm)
        self._second_norm = norm_of(layer.post_attention_layernorm)
        self._qkv = Product(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = Product(attention.o_proj)
        self._dim = attention.head_dim
        self._heads = [size // self._dim for size in self._qkv.sizes]
        self._head_norm = head_norm_of(attention, *self._heads[:2])
        self._mlp = mlp_of(layer.mlp)

    def __call__(self, hidden: torch.Tensor, turns: Turns, segments: Segments) -> torch.Tensor:
        queries, keys, values = self._heads
        qkv = self._qkv(self._norm(hidden)).view(len(hidden), -1, self._dim)
        turned = rotate(self._head_norm(qkv[:, : queries + keys]), turns)
        query, key = torch.split(turned, [queries, keys], dim=1)
        hidden += self._out(attend(query, key, qkv[:, -values:], segments, causal=True))
        hidden += self._mlp(self._second_norm(hidden))
        return hidden


class LanguageModel:
    """Qwen2's and Qwen3's decoder, each token seeing those before it in its sequence."""

    def __init__(self, model: Any) -> None:
        self._layers = [_Layer(layer) for layer in model.layers]
        self._norm = norm_of(model.norm)

    def __call__(
        self,
        hidden: torch.Tensor,
        turns: Turns,
        segments: Segments,
        added: Sequence[Added] = (),
    ) -> torch.Tensor:
        """Map (tokens, hidden), which is overwritten, to (tokens, hidden).

        What `added` has first is added behind the first layer, and so on.
        """
        for number, layer in enumerate(self._layers):
            hidden = layer(hidden, turns, segments)
            if number < len(added):
                tokens, features = added[number]
                hidden[tokens] += features
        return self._norm(hidden)
