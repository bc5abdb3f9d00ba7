"""The GPUs that Modal offers: what each can compute and hold, checked before one is paid for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from pagevec.engine.models.capabilities import (
    BFLOAT16_FROM,
    FP8_FROM,
    Capability,
    dtype_for,
    show,
)
from pagevec.engine.models.registry import PARAMETERS
from pagevec.errors import ConfigurationError

if TYPE_CHECKING:
    from pagevec.settings import Settings  # `pagevec cost` needs no pydantic

Gpu = Literal[
    "T4",
    "L4",
    "A10",
    "A10G",
    "L40S",
    "A100",
    "A100-40GB",
    "A100-80GB",
    "RTX-PRO-6000",
    "H100",
    "H200",
    "B200",
]
"""Their names (https://modal.com/docs/guide/gpu); A10G is the former name of A10."""

_GIB = 1024**3
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
_WORKING_GB = 2.5  # batches and CUDA's own, in docs/operations.md


@dataclass(frozen=True)
class Card:
    """A kind of GPU.

    Attributes:
        gib: its memory in GiB, rounded down.
        capability: its compute capability (https://developer.nvidia.com/cuda-gpus).
    """

    gib: int
    capability: Capability


CARDS: Mapping[Gpu, Card] = {
    "T4": Card(15, (7, 5)),
    "L4": Card(22, (8, 9)),
    "A10": Card(22, (8, 6)),
    "A10G": Card(22, (8, 6)),
    "L40S": Card(44, (8, 9)),
    "A100": Card(40, (8, 0)),
    "A100-40GB": Card(40, (8, 0)),
    "A100-80GB": Card(80, (8, 0)),
    "RTX-PRO-6000": Card(95, (12, 0)),
    "H100": Card(79, (9, 0)),
    "H200": Card(140, (9, 0)),
    "B200": Card(178, (10, 0)),
}

# An H100 that is never replaced by a better GPU, and a B200 that may be.
_VARIANTS: Mapping[str, Gpu] = {"H100!": "H100", "B200+": "B200"}

NAMES = f"{', '.join([*get_args(Gpu), 'H100!'])} or B200+"
"""What a deployment may ask for, in words."""


def find_card(gpu: str) -> Card | None:
    """Return what is known of `gpu`; None for one that Modal has got since."""
    name = _VARIANTS.get(gpu, gpu)
    return next((card for known, card in CARDS.items() if known == name), None)


def choose_dtype(gpu: str) -> str:
    """Return what the dtype `auto` means on `gpu`; `auto` where that is not known."""
    card = find_card(gpu)
    return "auto" if card is None else dtype_for(card.capability)


def require_able(gpu: str, service: "Settings") -> None:
    """Check that `gpu`, as far as it is known, can run the model as `service` asks for it.

    A container that finds out by itself has been paid for, and Modal starts the next one.

    Args:
        gpu: as in the settings of the deployment.
        service: the settings of the service; `auto` has been replaced where that can be done.

    Raises:
        ConfigurationError: it lacks the precision, the dtype or the memory.
    """
    setting, card = f"PAGEVEC_MODAL_GPU={gpu!r}", find_card(gpu)
    if service.precision == "fp8" and service.dtype in ("float32", "float16") and _has_fp8(card):
        raise ConfigurationError(
            f"PAGEVEC_PRECISION='fp8' is not supported with PAGEVEC_DTYPE={service.dtype!r}: use "
            "bfloat16, or int8"
        )
    if card is None:
        return
    if service.precision == "fp8" and not _has_fp8(card):
        raise ConfigurationError(
            f"PAGEVEC_PRECISION='fp8' is not supported on {setting}, which has no FP8 (compute "
            f"capability {show(card.capability)}, {show(FP8_FROM)} is needed); use int8 or full, "
            f"or one of {_from(FP8_FROM)}"
        )
    if service.dtype == "bfloat16" and card.capability < BFLOAT16_FROM:
        raise ConfigurationError(
            f"PAGEVEC_DTYPE='bfloat16' is not supported on {setting}, which has no bfloat16; use "
            f"auto or float16, or one of {_from(BFLOAT16_FROM)}"
        )
    _require_memory(setting, card, service)


def _has_fp8(card: Card | None) -> bool:
    """Whether a GPU has FP8, for all that is known of it."""
    return card is None or card.capability >= FP8_FROM


def _require_memory(setting: str, card: Card, service: "Settings") -> None:
    weights = PARAMETERS.get(service.model, 0) * _BYTES[service.dtype] / 1e9
    memory = card.gib * _GIB / 1e9
    if weights and weights + _WORKING_GB > memory:
        raise ConfigurationError(
            f"{setting} is too small for {service.model} in PAGEVEC_DTYPE={service.dtype!r}: "
            f"{weights:.1f} GB of weights and {_WORKING_GB} GB to work in, and it has "
            f"{memory:.1f} GB; use a dtype of 16 bits, or a larger GPU"
        )


def _from(capability: Capability) -> str:
    """Return the names of the GPUs that have what came with this compute capability."""
    return ", ".join(name for name, card in CARDS.items() if card.capability >= capability)
