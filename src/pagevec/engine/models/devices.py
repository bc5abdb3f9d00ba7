"""The device that runs a model: which one it is, whether it works, what it computes with."""

import logging
import os
import re
from pathlib import Path

import torch

from pagevec.engine.models.capabilities import BFLOAT16_FROM, Capability, dtype_for, show
from pagevec.engine.models.registry import BUNDLED
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

log = logging.getLogger(__name__)

_NODES = ("dev/nvidiactl", "dev/nvidia[0-9]*")
# WSL has no node of NVIDIA's, and its own for any maker's GPU: NVIDIA's driver brings the library.
_WSL = ("dev/dxg", "usr/lib/wsl/lib/libcuda.so*")
# Up to the first word that names no device, CUDA_VISIBLE_DEVICES counts.
_NAMES_A_DEVICE = re.compile(r"\s*(\d|GPU-|MIG-)")


def find_device(settings: Settings, root: Path = Path("/")) -> torch.device:
    """Return the device that `settings` name; for `auto` the best one of this machine.

    A GPU that is there and cannot be used is an error, not a start on the CPU, where `auto` would
    serve the small model in the package as if all were well. For who names that model, the CPU will
    do.

    Args:
        settings: device and model.
        root: where `dev` is.

    Raises:
        ConfigurationError: this machine has no such device, or cannot use it.
    """
    if settings.device == "auto":
        return _best_device(settings, root)
    device = torch.device(settings.device)
    if device.type == "cuda":
        _require_cuda(settings, device.index or 0, root)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError(f"{settings.cite('device')}: this machine has no MPS device")
    return device


def cuda_devices() -> int:
    """Return how many CUDA devices this machine has."""
    return torch.cuda.device_count()


def compute_capability(device: torch.device) -> Capability | None:
    """Return the compute capability of a CUDA device, which is asked; None for any other."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def choose_dtype(name: str, device: torch.device, capability: Capability | None) -> torch.dtype:
    """Return the dtype called `name`; for `auto` the best one of `device`.

    Args:
        name: as in the settings.
        device: where the model will run; it is not touched.
        capability: of a CUDA device; None if it may not be asked yet, and then a recent one is
            expected, which `require_dtype` makes sure of.
    """
    if name == "auto":
        on_cuda = dtype_for(capability or BFLOAT16_FROM)
        name = on_cuda if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def require_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Check that `device` computes in `dtype`.

    Raises:
        ConfigurationError: it is a GPU without bfloat16.
    """
    capability = compute_capability(device)
    if dtype == torch.bfloat16 and capability is not None and capability < BFLOAT16_FROM:
        raise ConfigurationError(
            f"PAGEVEC_DTYPE='bfloat16' is not supported on {device}: bfloat16 needs compute "
            f"capability {show(BFLOAT16_FROM)} or above, and this GPU has {show(capability)}; use "
            "float16"
        )


def _best_device(settings: Settings, root: Path) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if torch.version.cuda and _has_gpu(root) and not _hides_all():
        fault = _explain_no_cuda(settings, root)
        if settings.model != BUNDLED:
            raise ConfigurationError(fault)
        log.warning("the model runs on the CPU: %s", fault)
    return torch.device("cpu")


def _require_cuda(settings: Settings, index: int, root: Path) -> None:
    # Not by the count of devices alone: NVML counts those whose driver is too old for torch, too.
    if not torch.cuda.is_available():
        raise ConfigurationError(_explain_no_cuda(settings, root))
    if index >= torch.cuda.device_count():
        raise ConfigurationError(
            f"{settings.cite('device')}: this machine has {torch.cuda.device_count()} CUDA "
            "devices: name another one (cpu works everywhere), or use a machine that has it"
        )


def _explain_no_cuda(settings: Settings, root: Path) -> str:
    advice = f"{_advise(root)}, or set PAGEVEC_DEVICE=cpu"
    return f"{settings.cite('device')}: {advice}; torch says: {_ask_torch()}"


def _advise(root: Path) -> str:
    if not (torch.version.cuda or torch.version.hip):
        return "the installed torch is a build without CUDA: install one with CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if _hides_all():
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: change it"
    if not _has_gpu(root):
        return (
            "no NVIDIA GPU is to be seen here: use a machine that has one, start a container with "
            "access to it (`--gpus all`)"
        )
    if closed := [str(node) for node in _nodes(root) if not os.access(node, os.R_OK | os.W_OK)]:
        return f"this user may not open {', '.join(closed)}: let it"
    named = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
    return (
        f"this machine has an NVIDIA GPU that torch cannot use{named}: update its driver (the GPU "
        "section of docs/hosting.md says which version torch needs)"
    )


def _ask_torch() -> str:
    """Return torch's own reason why CUDA cannot be used, on one line."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # of the driver, of the build, of a call that torch deferred
        return " ".join(str(error).split())
    return "no CUDA device is available"


def _has_gpu(root: Path) -> bool:
    return bool(_nodes(root)) or all(any(root.glob(pattern)) for pattern in _WSL)


def _nodes(root: Path) -> list[Path]:
    return sorted(node for pattern in _NODES for node in root.glob(pattern))


def _hides_all() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs, as it does when it is empty or -1."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and not _NAMES_A_DEVICE.match(visible)
