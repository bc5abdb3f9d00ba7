"""Reduced precision: the large matrix products of a model in int8 or FP8, by torchao.

Weights are scaled by row when the model is loaded, activations by token in each forward pass, so a
token's vector does not depend on the other inputs of its batch. Norms, patch embedding, merger and
projection keep their precision: they are small, or the last step before the vectors.
"""

import importlib.util
import logging
import re
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pagevec.engine.models.capabilities import FP8_FROM, show
from pagevec.engine.models.compat import widen_mlp
from pagevec.engine.models.devices import compute_capability
from pagevec.errors import ConfigurationError
from pagevec.extras import how_to_install

log = logging.getLogger(__name__)

# CUDA's kernels take FP8 matrices whose sides are multiples of 16 (int8: of 8). One rule for all
# devices, so that the same products are reduced everywhere.
_MULTIPLE = 16
_IN_A_LAYER = re.compile(r"\.(layers|blocks)\.\d+\.")
# Lower bound of a token's largest value: a token of zeros, such as padding, would be divided by 0.
_SMALLEST = 1e-12


def require_precision(precision: str, device: torch.device, dtype: torch.dtype) -> None:
    """Check that `device` can multiply in `precision`.

    Args:
        precision: full, int8, fp8 or fastest, which every device can.
        device: where the model will run.
        dtype: data type of the weights.

    Raises:
        ConfigurationError: it cannot, `dtype` does not allow it, or torchao is not installed.
    """
    if precision in ("full", "fastest"):
        return
    setting = f"PAGEVEC_PRECISION={precision!r}"
    if not has_torchao():
        raise ConfigurationError(f"{setting} requires {how_to_install('precision')}")
    if precision == "int8" and device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"{setting} is not supported on {device}; use full")
    if precision == "fp8" and not _has_fp8(device):
        raise ConfigurationError(
            f"{setting} is not supported on {device}: FP8 needs CUDA with compute capability "
            f"{show(FP8_FROM)} or above (L4, L40S, H100, H200, B200); use int8 or full"
        )
    if precision == "fp8" and dtype != torch.bfloat16:
        name = str(dtype).removeprefix("torch.")
        raise ConfigurationError(
            f"{setting} is not supported with PAGEVEC_DTYPE={name!r}: use bfloat16, or int8"
        )


def has_torchao() -> bool:
    """Whether torchao, which multiplies in int8 and FP8, is installed."""
    return importlib.util.find_spec("torchao") is not None


def reduce_precision(model: nn.Module, precision: str, device: torch.device) -> None:
    """Quantise, in place, the large linear layers of the transformer blocks of `model`.

    A model that is quantised already is left alone: a snapshot of a GPU's memory is moved twice.
    """
    is_reduced = any(map(is_traceable_wrapper_subclass, model.parameters()))
    if precision in ("full", "fastest") or is_reduced:
        return
    from torchao.quantization import quantize_

    for module in model.modules():
        if isinstance(getattr(module, "gate_proj", None), nn.Linear):
            widen_mlp(module, _MULTIPLE)
    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    large = {name for name, layer in linear.items() if _is_large(layer, name)}
    quantize_(model, _make_config(precision, device), filter_fn=lambda _, name: name in large)
    log.info("%s precision: %d of %d linear layers", precision, len(large), len(linear))


def _make_config(precision: str, device: torch.device) -> Any:
    from torchao import quantization
    from torchao.utils import should_reduce_range

    if precision == "fp8":
        return quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=quantization.PerRow(),
            activation_value_lb=_SMALLEST,
            set_inductor_config=False,
        )
    # CPUs without VNNI add pairs of products in 16 bits: one bit of eight must stay unused there.
    return quantization.Int8DynamicActivationInt8WeightConfig(
        reduce_range=should_reduce_range(device), set_inductor_config=False
    )


def _is_large(layer: nn.Linear, name: str) -> bool:
    sides = (layer.in_features, layer.out_features)
    return bool(_IN_A_LAYER.search(name)) and all(side % _MULTIPLE == 0 for side in sides)


def _has_fp8(device: torch.device) -> bool:
    capability = compute_capability(device)
    return capability is not None and capability >= FP8_FROM
