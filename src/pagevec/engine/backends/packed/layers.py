"""The layers of both towers, written for few passes over memory.

Linear layers that share an input (query, key and value; gate and up) are fused; the original
modules keep views of the fused weight, so that it is in memory once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, rms_norm, silu
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pagevec.engine.models.compat import widen_mlp

_ALIGNMENT = 16  # bytes
Activation = Callable[[torch.Tensor], torch.Tensor]


class FusedLinear:
    """Linear layers over the same input as one matrix product, their outputs side by side.

    Attributes:
        sizes: output features of each layer.
    """

    def __init__(self, *layers: nn.Linear) -> None:
        self.sizes = [layer.out_features for layer in layers]
        self._weight = _fuse([layer.weight for layer in layers])
        has_bias = layers[0].bias is not None
        self._bias = _fuse([layer.bias for layer in layers]) if has_bias else None
        for position, layer in enumerate(layers):
            start, end = sum(self.sizes[:position]), sum(self.sizes[: position + 1])
            layer.weight = _view(self._weight, start, end)
            if self._bias is not None:
                layer.bias = _view(self._bias, start, end)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (tokens, in) to (tokens, sum of out)."""
        return linear(inputs, self._weight, self._bias)


class GatedMLP:
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, mlp: Any) -> None:
        # Qwen2.5's vision tower has 3,420 columns there, in the layers that do most of its work:
        # CUDA has slower kernels for rows that do not begin at multiples of 16 bytes.
        widen_mlp(mlp, _ALIGNMENT // mlp.down_proj.weight.element_size())
        self._gate_and_up = FusedLinear(mlp.gate_proj, mlp.up_proj)
        self._down = FusedLinear(mlp.down_proj)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (tokens, hidden) to (tokens, hidden)."""
        gate, up = self._gate_and_up(inputs).chunk(2, dim=-1)
        return self._down(silu(gate, inplace=True).mul_(up))


def build_mlp(module: Any) -> Activation:
    """Return the fused form of an MLP of transformers, or the module itself if it is not gated."""
    return GatedMLP(module) if hasattr(module, "gate_proj") else module


def build_norm(module: Any) -> Activation:
    """Return the fast form of a norm of transformers: a LayerNorm is one already, or none."""
    if isinstance(module, nn.LayerNorm | nn.Identity):
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
        return _divide_by_rms(inputs, self._eps).mul_(self._weight)


class HeadNorm:
    """The RMS norms of query and key heads, which stand side by side, as one."""

    def __init__(self, query: Any, key: Any, queries: int, keys: int) -> None:
        """Fuse two norms of transformers.

        Args:
            query: norm of the query heads.
            key: norm of the key heads.
            queries: number of query heads.
            keys: number of key heads.
        """
        self._weight = torch.cat([query.weight.expand(queries, -1), key.weight.expand(keys, -1)])
        self._eps = query.variance_epsilon

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        """Normalise each head of (tokens, heads, dim)."""
        if heads.device.type != "cpu":
            return rms_norm(heads, heads.shape[-1:], eps=self._eps).mul_(self._weight)
        return _divide_by_rms(heads, self._eps).mul_(self._weight)


def build_head_norm(attention: Any, queries: int, keys: int) -> Activation:
    """Return the norm of query and key heads; the identity where the attention has none."""
    if not hasattr(attention, "q_norm"):
        return nn.Identity()
    return HeadNorm(attention.q_norm, attention.k_norm, queries, keys)


Pair = tuple[torch.Tensor, torch.Tensor]
"""Two tensors with a row for each token of a pack."""

CosSin = Pair
"""Cosine and sine of each token's rotary angles: float32 (tokens, dim / 2) each."""


def apply_rotary(pairs: torch.Tensor, cos_sin: CosSin) -> torch.Tensor:
    """Rotate pairs of components by the angles of their token (RoPE, Su et al. 2021).

    Args:
        pairs: (tokens, ..., dim), where components i and i + dim / 2 are a pair.
        cos_sin: the angles.

    Returns:
        The rotated components, of the shape and dtype of `pairs`.
    """
    first, second = pairs.chunk(2, dim=-1)
    cos, sin = (one.view(len(one), *[1] * (pairs.dim() - 2), -1) for one in cos_sin)
    rotated = torch.empty_like(pairs, memory_format=torch.contiguous_format)
    to_first, to_second = rotated.chunk(2, dim=-1)
    # In float32 whatever the dtype of `pairs`, without a copy of them in float32.
    if pairs.dtype == torch.float32:
        torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=to_second).addcmul_(first, sin)
    else:
        torch.addcmul(first * cos, second, sin, value=-1, out=to_first)
        torch.addcmul(second * cos, first, sin, out=to_second)
    return rotated


def rotary_cos_sin(rotary: Any, positions: torch.Tensor) -> CosSin:
    """Return the angles that a rotary embedding of transformers gives to int64 `positions`."""
    like = torch.empty(0, dtype=torch.float32, device=positions.device)
    # transformers repeats each angle, once for either component of a pair.
    cos, sin = (one.flatten(0, -2).chunk(2, dim=-1)[0] for one in rotary(like, positions))
    return cos.contiguous(), sin.contiguous()


def concatenate(pairs: Sequence[Pair]) -> Pair:
    """Concatenate pairs of tensors along their rows."""
    if len(pairs) == 1:
        return pairs[0]
    return torch.cat([one for one, _ in pairs]), torch.cat([other for _, other in pairs])


def _divide_by_rms(inputs: torch.Tensor, eps: float) -> torch.Tensor:
    # On a CPU torch's own rms_norm makes six passes over the rows; this and the weight make three.
    length = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.rsqrt(length.square_().div_(inputs.shape[-1]).add_(eps))
    return torch.mul(inputs, scale.to(inputs.dtype))


def _fuse(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0].detach()
    if is_traceable_wrapper_subclass(parts[0]):
        return _fuse_quantised(parts)
    return torch.cat([one.detach() for one in parts])


def _fuse_quantised(parts: Sequence[Any]) -> torch.Tensor:
    """Concatenate weights of torchao: the quantised rows, and the scales of the rows."""
    names, form = parts[0].__tensor_flatten__()
    inner = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    whole: torch.Tensor = type(parts[0]).__tensor_unflatten__(inner, form, None, None)
    return whole


def _view(whole: torch.Tensor, start: int, end: int) -> nn.Parameter:
    return nn.Parameter(whole[start:end], requires_grad=False)
