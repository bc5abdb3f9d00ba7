"""The language model over a pack: hidden vectors in, hidden vectors out."""

from collections.abc import Sequence
from typing import Any

import torch

from pagevec.engine.backends.packed.layers import (
    CosSin,
    FusedLinear,
    apply_rotary,
    build_head_norm,
    build_mlp,
    build_norm,
)
from pagevec.engine.backends.packed.segments import Segments, attend

DeepFeatures = tuple[torch.Tensor, torch.Tensor]
"""Indices of visual tokens in a pack, int64 (n,), and features to add to them, (n, hidden)."""


class Layer:
    """A layer of the language model."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self._norm = build_norm(layer.input_layernorm)
        self._second_norm = build_norm(layer.post_attention_layernorm)
        self._qkv = FusedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = FusedLinear(attention.o_proj)
        self._dim = attention.head_dim
        self._heads = [size // self._dim for size in self._qkv.sizes]
        self._head_norm = build_head_norm(attention, *self._heads[:2])
        self._mlp = build_mlp(layer.mlp)
        self._is_causal = bool(attention.is_causal)

    def __call__(self, hidden: torch.Tensor, cos_sin: CosSin, segments: Segments) -> torch.Tensor:
        queries, keys, values = self._heads
        qkv = self._qkv(self._norm(hidden)).view(len(hidden), -1, self._dim)
        rotated = apply_rotary(self._head_norm(qkv[:, : queries + keys]), cos_sin)
        query, key = torch.split(rotated, [queries, keys], dim=1)
        hidden += self._out(attend(query, key, qkv[:, -values:], segments, causal=self._is_causal))
        hidden += self._mlp(self._second_norm(hidden))
        return hidden


class LanguageModel:
    """The decoder of Qwen2 and Qwen3, with attention within each sequence."""

    def __init__(self, model: Any) -> None:
        self._layers = [Layer(layer) for layer in model.layers]
        self._norm = build_norm(model.norm)

    def __call__(
        self,
        hidden: torch.Tensor,
        cos_sin: CosSin,
        segments: Segments,
        deep: Sequence[DeepFeatures] = (),
    ) -> torch.Tensor:
        """Map (tokens, hidden), which is overwritten, to (tokens, hidden).

        Args:
            hidden: embeddings of the tokens, (tokens, hidden).
            cos_sin: rotary angles of the tokens.
            segments: the sequences of the pack.
            deep: features to add after each of the first layers (DeepStack).
        """
        for number, layer in enumerate(self._layers):
            hidden = layer(hidden, cos_sin, segments)
            if number < len(deep):
                tokens, features = deep[number]
                hidden[tokens] += features
        return self._norm(hidden)
