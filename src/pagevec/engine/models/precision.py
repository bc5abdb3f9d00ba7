"""Reduced precision: the large products of a model in int8 or FP8, by torchao.

Weights get a scale for each row when the model is loaded, activations one for each token on their
way: what a token becomes does not depend on its neighbours. What is small, or the last step to the
vectors, stays as it is: norms, patch embedding, merger, projection.
"""

import importlib.util
import logging
import re
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pagevec.errors import ConfigurationError

log = logging.getLogger(__name__)

# The kernels of CUDA take FP8 matrices whose sides are multiples of 16 (int8: of 8). The same
# products are reduced on every device.
_MULTIPLE = 16
_IN_A_LAYER = re.compile(r"\.(layers|blocks)\.\d+\.")
# Compute capability of Ada; of those before it no kernel multiplies FP8.
_FP8_FROM = (8, 9)
# Of a token's largest number: a token of zeros (padding has such) would be divided by its scale, 0.
_SMALLEST = 1e-12


def require_precision(precision: str, device: torch.device, dtype: torch.dtype) -> None:
    """Do nothing where `device` has such products.

    Raises:
        ConfigurationError: it has none, `dtype` (of the weights) does not go with them, or torchao
            is not installed.
    """
    if precision == "full":
        return
    asked = f"PAGEVEC_PRECISION is {precision!r}"
    if importlib.util.find_spec("torchao") is None:
        raise ConfigurationError(f"{asked}, which needs `pip install 'pagevec[precision]'`")
    if precision == "int8" and device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"{asked}, which {device} has no products for: take full")
    if precision == "fp8" and not _has_fp8(device):
        raise ConfigurationError(
            f"{asked}, which {device} has no products for: it takes CUDA and a compute capability "
            "of 8.9 or above (L4, L40S, H100, H200); take int8 or full"
        )
    if precision == "fp8" and dtype != torch.bfloat16:
        name = str(dtype).removeprefix("torch.")
        raise ConfigurationError(
            f"{asked} and PAGEVEC_DTYPE {name!r}: FP8 goes with bfloat16 alone; take that, or int8"
        )


def reduce_precision(model: nn.Module, precision: str, device: torch.device) -> None:
    """Quantise, in place, the linear layers in the numbered layers of `model` on `device`.

    A model that is quantised already stays as it is: one in a snapshot of a GPU is moved twice.
    """
    if precision == "full" or any(map(is_traceable_wrapper_subclass, model.parameters())):
        return
    from torchao.quantization import quantize_

    for module in model.modules():
        if isinstance(getattr(module, "gate_proj", None), nn.Linear):
            _widen(module)
    products = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    reduced = {name for name, layer in products.items() if _is_large(layer, name)}
    quantize_(model, _config(precision, device), filter_fn=lambda _, name: name in reduced)
    log.info("%s precision: %d of %d linear layers", precision, len(reduced), len(products))


def _config(precision: str, device: torch.device) -> Any:
    from torchao import quantization
    from torchao.utils import should_reduce_range

    if precision == "fp8":
        return quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=quantization.PerRow(),
            activation_value_lb=_SMALLEST,
            set_inductor_config=False,
        )
    # CPUs without VNNI add pairs of products in 16 bits: there one bit of eight stays unused.
    return quantization.Int8DynamicActivationInt8WeightConfig(
        reduce_range=should_reduce_range(device), set_inductor_config=False
    )


def _is_large(layer: nn.Linear, name: str) -> bool:
    sides = (layer.in_features, layer.out_features)
    return bool(_IN_A_LAYER.search(name)) and all(side % _MULTIPLE == 0 for side in sides)


def _widen(mlp: Any) -> None:
    """Make the inner side of a gated MLP a multiple of 16, with neurons that nothing listens to.

    What it computes is the same. Qwen2.5's vision tower has 3,420 there, and most of its work.
    """
    missing = -mlp.down_proj.in_features % _MULTIPLE
    # Copies of other neurons, not zeros: FP8 has no scale for a row of zeros.
    for layer in (mlp.gate_proj, mlp.up_proj):
        layer.weight = _frozen(torch.cat([layer.weight, layer.weight[:missing]]))
        if layer.bias is not None:
            layer.bias = _frozen(torch.cat([layer.bias, layer.bias[:missing]]))
        layer.out_features += missing
    mlp.down_proj.weight = _frozen(pad(mlp.down_proj.weight, (0, missing)))
    mlp.down_proj.in_features += missing


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _has_fp8(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP8_FROM
