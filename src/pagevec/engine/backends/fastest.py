"""`PAGEVEC_PRECISION=fastest`: what this processor multiplies fastest, measured when it starts."""

import copy
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from pagevec.engine.backends.packed.language import Layer
from pagevec.engine.backends.packed.layers import CosSin
from pagevec.engine.backends.packed.segments import Segments
from pagevec.engine.backends.packed.vision import Block
from pagevec.engine.backends.padded import PaddedBackend
from pagevec.engine.backends.self_check import LEAST_COSINE, embed_samples, mean_cosines
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.models.precision import has_torchao, reduce_precision

log = logging.getLogger(__name__)

_ROUNDS = 3
_WINDOWS, _WINDOW = 8, 64  # patches of the vision tower's layer
_TOKENS = 256  # of the language model's
# What is less exact has to be this much faster than float32.
_WORTH = 1.1


class Numbers(NamedTuple):
    """What a model computes with."""

    dtype: torch.dtype
    precision: str

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.") if self.precision == "full" else "int8"


_EXACT = Numbers(torch.float32, "full")


def use_fastest(loaded: LoadedModel, again: Callable[[], LoadedModel]) -> LoadedModel:
    """Return the model in the numbers that are fastest on this processor.

    Those are bfloat16 where the processor has it (AVX-512 BF16, AMX), int8 where it has VNNI, and
    float32 in any case. One layer of either tower is timed in each of them.

    Args:
        loaded: a model in float32 on the CPU; its weights are changed.
        again: loads it once more, if its vectors have become too inexact.
    """
    seconds = {numbers: _time_layers(loaded, numbers) for numbers in _candidates()}
    fastest = min(seconds, key=lambda numbers: seconds[numbers])
    if seconds[_EXACT] < _WORTH * seconds[fastest]:
        fastest = _EXACT
    timed = ", ".join(f"{numbers} {1000 * took:.1f} ms" for numbers, took in seconds.items())
    log.info("two layers take %s: the model runs in %s", timed, fastest)
    if fastest == _EXACT:
        return _described(loaded, _EXACT)
    exact = embed_samples(PaddedBackend(loaded))
    _convert(loaded.model, fastest)
    cosine = min(mean_cosines(embed_samples(PaddedBackend(loaded)), exact))
    if cosine >= LEAST_COSINE:
        return _described(loaded, fastest)
    log.warning("in %s the vectors are too far from those in float32: cosine %.3f", fastest, cosine)
    return _described(again(), _EXACT)


def _candidates() -> list[Numbers]:
    cpu = torch.cpu
    candidates = [_EXACT]
    if cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported():
        candidates.append(Numbers(torch.bfloat16, "full"))
    if cpu._is_vnni_supported() and has_torchao():
        candidates.append(Numbers(torch.float32, "int8"))
    return candidates


@torch.inference_mode()
def _time_layers(loaded: LoadedModel, numbers: Numbers) -> float:
    """Return the median seconds of a layer of the vision tower and one of the language model."""
    first = (loaded.model.visual.blocks[0], loaded.model.get_decoder().layers[0])
    layers = nn.ModuleList([copy.deepcopy(layer) for layer in first])
    # Named as in a model, since only what is in a layer is reduced.
    _convert(nn.ModuleDict({"model": nn.ModuleDict({"layers": layers})}), numbers)
    seconds = []
    runs = (_of_vision(layers[0], numbers.dtype), _of_language(layers[1], numbers.dtype))
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        for run in runs:
            run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _of_vision(block: Any, dtype: torch.dtype) -> Callable[[], object]:
    hidden = torch.randn(_WINDOWS * _WINDOW, len(block.norm1.weight), dtype=dtype)
    segments = Segments((_WINDOW,) * _WINDOWS, hidden.device)
    layer, heads = Block(block), block.attn.num_heads
    cos_sin = _any_angles(len(hidden), hidden.shape[1] // heads)
    return lambda: layer(hidden, cos_sin, segments)


def _of_language(decoder_layer: Any, dtype: torch.dtype) -> Callable[[], object]:
    hidden = torch.randn(_TOKENS, len(decoder_layer.input_layernorm.weight), dtype=dtype)
    segments = Segments((_TOKENS,), hidden.device)
    layer = Layer(decoder_layer)
    cos_sin = _any_angles(len(hidden), decoder_layer.self_attn.head_dim)
    return lambda: layer(hidden, cos_sin, segments)


def _any_angles(tokens: int, dim: int) -> CosSin:
    return torch.ones(tokens, dim // 2), torch.zeros(tokens, dim // 2)


def _convert(model: nn.Module, numbers: Numbers) -> None:
    """Change the weights of `model`, in place; tables of angles stay in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(numbers.dtype)
    reduce_precision(model, numbers.precision, torch.device("cpu"))


def _described(loaded: LoadedModel, numbers: Numbers) -> LoadedModel:
    dtype = str(numbers.dtype).removeprefix("torch.")
    return replace(loaded, info=replace(loaded.info, dtype=dtype, precision=numbers.precision))
