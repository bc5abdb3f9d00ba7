"""Adjustments to other libraries: their imports; patch embeddings and MLPs of models."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Import torchvision, also where its default wheel sits beside a CPU-only torch.

    That wheel registers metadata for the operators `nms` and `qnms`, which only its CUDA library
    declares, so its import fails. The image processors of transformers need torchvision's resizing
    and neither operator: declaring the signatures is enough.

    Raises:
        RuntimeError: torchvision fails to import for any other reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_operators()
        importlib.import_module("torchvision")


@contextmanager
def without_torchao() -> Iterator[None]:
    """Keep transformers and peft, which import torchao where it is installed, from it in the block.

    Its import counts CUDA's devices. Where that happens before a snapshot of this process's memory,
    without a GPU, the driver answers in all copies of the process that there is none, and torchao
    keeps what it made of that. Inside the block it is not there; afterwards it can be imported.
    """
    if "torchao" in sys.modules:
        yield
        return
    sys.modules["torchao"] = None  # type: ignore[assignment] # Python's way to say: not there
    try:
        yield
    finally:
        del sys.modules["torchao"]


def _declare_operators() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", _NMS)


class PatchLinear(nn.Module):
    """A patch embedding as one matrix product.

    The vision towers of the Qwen families cut a page into patches first and pass each one, whole,
    to a Conv3d whose kernel is as large as the patch. The convolution costs several times the
    product (2,944 patches of 1,176 numbers, two cores, float32: 31 ms against 8 ms).
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach(), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map (patches, channels, frames, height, width) to (patches, hidden)."""
        return nn.functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def replace_patch_convolutions(model: Any) -> None:
    """Replace, in place, every patch embedding that is a Conv3d over a single patch."""
    for name, module in list(model.named_modules()):
        covers_patch = isinstance(module, nn.Conv3d) and module.kernel_size == module.stride
        if covers_patch and name.endswith("patch_embed.proj"):
            model.set_submodule(name, PatchLinear(module))


def widen_mlp(mlp: Any, multiple: int) -> None:
    """Pad the intermediate size of a gated MLP, in place, without changing its output.

    Args:
        mlp: a module with gate_proj, up_proj and down_proj.
        multiple: what the size has to be a multiple of afterwards.
    """
    missing = -mlp.down_proj.in_features % multiple
    if not missing:
        return
    # Neurons are repeated, not zeroed: FP8 has no scale for a row of zeros. Their weights in
    # down_proj are zero.
    for layer in (mlp.gate_proj, mlp.up_proj):
        layer.weight = _frozen(torch.cat([layer.weight, layer.weight[:missing]]))
        if layer.bias is not None:
            layer.bias = _frozen(torch.cat([layer.bias, layer.bias[:missing]]))
        layer.out_features += missing
    mlp.down_proj.weight = _frozen(pad(mlp.down_proj.weight, (0, missing)))
    mlp.down_proj.in_features += missing


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)
