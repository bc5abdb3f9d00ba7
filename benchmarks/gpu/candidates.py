"""Changes of the packed backend that only a GPU can judge: each is on until the end of a block.

None of them is in the package. `python -m benchmarks.gpu --only candidates` times them beside the
backend as it is. A kernel written in Triton by hand is not among them: what `torch.compile` makes
of these functions is one already.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast
from unittest.mock import patch

import torch
from torch.nn.functional import linear, silu

from pagevec.engine.backends.packed import language, vision
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.backends.packed.layers import CosSin, FusedLinear, GatedMLP
from pagevec.engine.backends.packed.segments import Segments, attend

Function = Callable[..., Any]
Make = Callable[[Function], Function]
"""Returns a function that does the same in another way, such as compiled."""
_FP8_MAX = 448.0  # of float8_e4m3fn
_SMALLEST = 1e-12  # a token of zeros has a scale, too
_FP8_MULTIPLE = 16


@cache
def compile_for_any_length(function: Function) -> Function:
    """Compile a function of tensors; the number of their rows may differ from call to call."""
    compiled = torch.compile(function)

    def call(*tensors: torch.Tensor) -> Any:
        for one in tensors:
            torch._dynamo.maybe_mark_dynamic(one, 0)
        return compiled(*tensors)

    return call


def run_eagerly(function: Function) -> Function:
    """Return `function` as it is: its arithmetic, without a compiler."""
    return function


@cache
def as_one_kernel(function: Function) -> Function:
    """Return `function` as one operator, which is counted as one launch."""
    names = {rotate: "rotate", gate: "gate"}
    whole = torch.library.custom_op(
        f"pagevec_benchmarks::{names[function]}", function, mutates_args=()
    )
    whole.register_fake(function)
    return cast(Function, whole)


def rotate(pairs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate as `apply_rotary` does, as one expression; cos and sin have as many dimensions."""
    first, second = pairs.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return rotated.to(pairs.dtype)


def gate(both: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up of (tokens, gate and up side by side), rounded once."""
    gated, up = both.float().chunk(2, dim=-1)
    return (silu(gated) * up).to(both.dtype)


@contextmanager
def fuse_elementwise(
    backend: PackedBackend, make: Make = compile_for_any_length
) -> Iterator[PackedBackend]:
    """Rotary embeddings, and silu(gate) * up, as one kernel each.

    Args:
        backend: the backend.
        make: how the two functions become kernels.
    """
    rotated, gated = make(rotate), make(gate)

    def apply_rotary(pairs: torch.Tensor, cos_sin: CosSin) -> torch.Tensor:
        cos, sin = (one.view(len(one), *[1] * (pairs.dim() - 2), -1) for one in cos_sin)
        return cast(torch.Tensor, rotated(pairs, cos, sin))

    def call_mlp(self: GatedMLP, inputs: torch.Tensor) -> torch.Tensor:
        return self._down(gated(self._gate_and_up(inputs)))

    with (
        patch.object(vision, "apply_rotary", apply_rotary),
        patch.object(language, "apply_rotary", apply_rotary),
        patch.object(GatedMLP, "__call__", call_mlp),
    ):
        yield backend


def gate_in_place(both: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up as `GatedMLP` does it; overwrites `both`."""
    gated, up = both.chunk(2, dim=-1)
    return silu(gated, inplace=True).mul_(up)


@contextmanager
def add_within_products(
    backend: PackedBackend, gated: Function = gate_in_place
) -> Iterator[PackedBackend]:
    """Residual sums of the language model as part of the products before them.

    Only products without a bias can add something else; the vision tower's have one.

    Args:
        backend: the backend.
        gated: maps gate and up, side by side, to silu(gate) * up.
    """

    def call_layer(
        self: language.Layer, hidden: torch.Tensor, cos_sin: CosSin, segments: Segments
    ) -> torch.Tensor:
        queries, keys, values = self._heads
        qkv = self._qkv(self._norm(hidden)).view(len(hidden), -1, self._dim)
        turn: Function = language.apply_rotary  # type: ignore[attr-defined] # perhaps a fused one
        rotated = turn(self._head_norm(qkv[:, : queries + keys]), cos_sin)
        query, key = torch.split(rotated, [queries, keys], dim=1)
        attended = attend(query, key, qkv[:, -values:], segments, causal=True)
        _add_product(hidden, self._out, attended)
        inputs, mlp = self._second_norm(hidden), cast(GatedMLP, self._mlp)
        _add_product(hidden, mlp._down, gated(mlp._gate_and_up(inputs)))
        return hidden

    with patch.object(language.Layer, "__call__", call_layer):
        yield backend


@contextmanager
def fuse_all(
    backend: PackedBackend, make: Make = compile_for_any_length
) -> Iterator[PackedBackend]:
    """`fuse_elementwise` and `add_within_products` together."""
    with fuse_elementwise(backend, make), add_within_products(backend, make(gate)):
        yield backend


def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (rows, columns) in FP8, and the scale of each row, float32 (rows, 1)."""
    exact = rows.float()
    scale = exact.abs().amax(dim=-1, keepdim=True).clamp(min=_SMALLEST) / _FP8_MAX
    return (exact / scale).to(torch.float8_e4m3fn), scale


Scaled = tuple[torch.Tensor, torch.Tensor]
Multiply = Callable[[Scaled, Scaled, torch.Tensor | None, torch.dtype], torch.Tensor]
"""Maps what `quantise` made of inputs and of a weight, a bias and a dtype, to the product."""


def multiply_scaled(
    inputs: Scaled, weight: Scaled, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Multiply with cuBLAS or CUTLASS, which scale rows and columns as they write them."""
    return torch._scaled_mm(
        inputs[0],
        weight[0].t(),
        scale_a=inputs[1],
        scale_b=weight[1].t(),
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


def multiply_exactly(
    inputs: Scaled, weight: Scaled, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Multiply the same numbers in float32, on any device."""
    exact, exact_weight = (numbers.float() * scale for numbers, scale in (inputs, weight))
    return linear(exact, exact_weight, None if bias is None else bias.float()).to(dtype)


@contextmanager
def use_fp8(
    backend: PackedBackend,
    make: Make = compile_for_any_length,
    multiply: Multiply = multiply_scaled,
) -> Iterator[PackedBackend]:
    """The products of all layers in FP8, with one kernel that quantises their inputs.

    Args:
        backend: the backend, in bfloat16.
        make: how `quantise` becomes a kernel.
        multiply: multiplies what was quantised.
    """
    quantised, original = make(quantise), FusedLinear.__call__
    weights = {id(one): quantise(one._weight) for one in find_products(backend)}

    def call(self: FusedLinear, inputs: torch.Tensor) -> torch.Tensor:
        weight = weights.get(id(self))
        if weight is None:
            return original(self, inputs)
        return multiply(quantised(inputs), weight, self._bias, inputs.dtype)

    with patch.object(FusedLinear, "__call__", call):
        yield backend


def find_products(backend: PackedBackend) -> Iterator[FusedLinear]:
    """Yield the products of all layers of both towers whose sides FP8 allows."""
    layers: list[Any] = [block for stage in backend._vision._stages for block in stage.blocks]
    for layer in layers + backend._language._layers:
        products = [layer._qkv, layer._out]
        if isinstance(layer._mlp, GatedMLP):
            products += [layer._mlp._gate_and_up, layer._mlp._down]
        for one in products:
            if all(side % _FP8_MULTIPLE == 0 for side in one._weight.shape):
                yield one


def _add_product(hidden: torch.Tensor, product: FusedLinear, inputs: torch.Tensor) -> None:
    if product._bias is None:
        torch.addmm(hidden, inputs, product._weight.t(), out=hidden)
    else:
        hidden += product(inputs)
