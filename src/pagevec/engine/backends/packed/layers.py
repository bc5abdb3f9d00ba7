"""What both towers are made of, in few passes over memory.

Products over the same input (query, key and value; gate and up) are one, and their weights stand
once: the modules that they came from see parts of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, rms_norm, silu
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

Activation = Callable[[torch.Tensor], torch.Tensor]


class Product:
    """One product for linear layers over the same input; their outputs stand side by side."""

    def __init__(self, *layers: nn.Linear) -> None:
        self.sizes = [layer.out_features for layer in layers]
        self._weight = _shared([layer.weight for layer in layers])
        has_bias = layers[0].bias is not None
        self._bias = _shared([layer.bias for layer in layers]) if has_bias else None
        for position, layer in enumerate(layers):
            start, end = sum(self.sizes[:position]), sum(self.sizes[: position + 1])
            layer.weight = _part(self._weight, start, end)
            if self._bias is not None:
                layer.bias = _part(self._bias, start, end)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (tokens, in) to (tokens, sum of out)."""
        return linear(inputs, self._weight, self._bias)


class GatedMLP:
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, mlp: Any) -> None:
        self._gate_and_up = Product(mlp.gate_proj, mlp.up_proj)
        self._down = Product(mlp.down_proj)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (tokens, hidden) to (tokens, hidden)."""
        gate, up = self._gate_and_up(inputs).chunk(2, dim=-1)
        return self._down(silu(gate, inplace=True).mul_(up))


def mlp_of(module: Any) -> Activation:
    """Return what does the work of an MLP of transformers: gated ones in two products."""
    return GatedMLP(module) if hasattr(module, "gate_proj") else module


def norm_of(module: Any) -> Activation:
    """Return what does the work of a norm: RMS norms by torch's own function."""
    if isinstance(module, nn.LayerNorm):
        return module
    return RMSNorm(module)


class RMSNorm:
    """x / rms(x) * weight."""

    def __init__(self, module: Any) -> None:
        self._weight = module.weight
        self._eps = module.variance_epsilon

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalise the rows of (tokens, hidden)."""
        if inputs.device.type != "cpu":
            return rms_norm(inputs, self._weight.shape, self._weight, self._eps)
        return _of_unit_rms(inputs, self._eps).mul_(self._weight)


class HeadNorm:
    """The RMS norms of queries and keys, whose heads stand side by side, as one."""

    def __init__(self, query: Any, key: Any, queries: int, keys: int) -> None:
        """Take both norms of transformers, and how many heads each of them is for."""
        self._weight = torch.cat([query.weight.expand(queries, -1), key.weight.expand(keys, -1)])
        self._eps = query.variance_epsilon

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        """Normalise each head of (tokens, heads, dim)."""
        if heads.device.type != "cpu":
            return rms_norm(heads, heads.shape[-1:], eps=self._eps).mul_(self._weight)
        return _of_unit_rms(heads, self._eps).mul_(self._weight)


def head_norm_of(attention: Any, queries: int, keys: int) -> Activation:
    """Return what normalises the heads of queries and keys: nothing where they have no norm."""
    if not hasattr(attention, "q_norm"):
        return nn.Identity()
    return HeadNorm(attention.q_norm, attention.k_norm, queries, keys)


def rotate(pairs: torch.Tensor, turns: "Turns") -> torch.Tensor:
    """Turn each pair of components by its token's angle (RoPE, Su et al. 2021).

    `pairs` is (tokens, ..., dim), where component i and i + dim / 2 are a pair.
    """
    if pairs.dtype != torch.float32:
        return rotate(pairs.float(), turns).to(pairs.dtype)
    first, second = pairs.chunk(2, dim=-1)
    cos, sin = (one.view(len(one), *[1] * (pairs.dim() - 2), -1) for one in turns)
    turned = torch.empty_like(pairs, memory_format=torch.contiguous_format)
    to_first, to_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin)
    return turned


Pair = tuple[torch.Tensor, torch.Tensor]
"""Two tensors with a row for each token of a pack."""

Turns = Pair
"""Cosine and sine of each token's angles: float32 (tokens, dim / 2) each."""


def turns_of(rotary: Any, positions: torch.Tensor) -> Turns:
    """Return the angles that a rotary embedding of transformers gives to `positions`."""
    like = torch.empty(0, dtype=torch.float32, device=positions.device)
    # It gives each angle twice, once for either component of a pair.
    cos, sin = (one.flatten(0, -2).chunk(2, dim=-1)[0] for one in rotary(like, positions))
    return cos.contiguous(), sin.contiguous()


def joined(pairs: Sequence[Pair]) -> Pair:
    """Return the pairs of several packs, one behind another."""
    if len(pairs) == 1:
        return pairs[0]
    return torch.cat([one for one, _ in pairs]), torch.cat([other for _, other in pairs])


def _of_unit_rms(inputs: torch.Tensor, eps: float) -> torch.Tensor:
    # On a CPU torch's own is made of six passes over the rows; with the weight these are three.
    length = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.rsqrt(length.square_().div_(inputs.shape[-1]).add_(eps))
    return torch.mul(inputs, scale.to(inputs.dtype))


def _shared(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0].detach()
    if is_traceable_wrapper_subclass(parts[0]):
        return _shared_quantised(parts)
    return torch.cat([one.detach() for one in parts])


def _shared_quantised(parts: Sequence[Any]) -> torch.Tensor:
    """Join weights of torchao, whose rows have numbers and scales of their own: both one by one."""
    names, form = parts[0].__tensor_flatten__()
    inner = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    whole: torch.Tensor = type(parts[0]).__tensor_unflatten__(inner, form, None, None)
    return whole


def _part(whole: torch.Tensor, start: int, end: int) -> nn.Parameter:
    return nn.Parameter(whole[start:end], requires_grad=False)
