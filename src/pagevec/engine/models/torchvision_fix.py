"""One place for a known fault: torchvision's default wheel beside a CPU-only torch.

The wheel registers metadata for the operators ``nms`` and ``qnms`` that only its CUDA library
declares, so its import fails with ``operator torchvision::nms does not exist``. The image
processors of transformers need torchvision's resizing, never these two operators: declaring
their signatures is enough.
"""

import importlib
import sys

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Import torchvision, declaring its two missing operators if, and only if, they are missing.

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


def _declare_operators() -> None:
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", _NMS)
