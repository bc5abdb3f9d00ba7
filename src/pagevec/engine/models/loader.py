"""A checkpoint -> a model in memory -> the same on its device.

The two steps can be taken apart: a memory snapshot of a process keeps what was read, and no device.
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pagevec.engine.backends.packed.inputs import PackedPreprocessor
from pagevec.engine.backends.preprocess import CORES, Preprocessor
from pagevec.engine.models.checkpoint import Checkpoint
from pagevec.engine.models.patches import use_patch_products
from pagevec.engine.models.precision import reduce_precision, require_precision
from pagevec.engine.models.registry import Family
from pagevec.engine.models.torchvision_fix import import_torchvision
from pagevec.errors import ConfigurationError
from pagevec.grid import PageResizing
from pagevec.settings import Settings
from pagevec.types import ModelInfo

log = logging.getLogger(__name__)

_BATCH_TOKENS_ON_CPU = 1024  # about one page: on a CPU caches decide, not launches
_BATCH_TOKENS_ON_ACCELERATOR = 16_384
# Two passes on one core each do more than one pass on two, whose threads wait for each other after
# every step; a single page takes longer. Transformers' own forward is not made for threads.
_PASSES_ON_CPU = 4


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model on its device, and what prepares its inputs.

    Attributes:
        padding_side, pad_token_id: how its tokenizer pads a batch.
        packs: whether it runs without padding.
        attention_knee: see `pagevec.engine.speed.Speed`.
        default_batch_tokens: tokens of a forward pass that suit the device.
        default_threads: passes at the same time that suit it.
        seconds: what each stage of its start took so far.
    """

    model: Any
    preprocessor: Preprocessor
    info: ModelInfo
    device: torch.device
    padding_side: str
    pad_token_id: int
    packs: bool
    attention_knee: float
    default_batch_tokens: int
    default_threads: int
    seconds: Mapping[str, float] = field(default_factory=dict)


def load(settings: Settings) -> LoadedModel:
    """Load the checkpoint that `settings` name onto its device.

    Raises:
        CheckpointError, ConfigurationError: see `read`, `find_device` and `require_precision`.
    """
    device = find_device(settings.device)
    # Before minutes of reading; a model that was read elsewhere is checked when it is moved.
    require_precision(settings.precision, device, _dtype(settings.dtype, device))
    return on_device(read(settings, device), device)


def read(settings: Settings, device: torch.device | None = None) -> LoadedModel:
    """Read the checkpoint that `settings` name into this machine's memory, as `device` needs it.

    No device is touched, and none need be there yet. Without `device` it is the one that the
    settings name, and CUDA where they say `auto`.

    Raises:
        CheckpointError: it cannot be found or read, its family is unknown, or not all of its
            weights loaded.
    """
    started = time.perf_counter()
    if device is None:
        device = torch.device("cuda" if settings.device == "auto" else settings.device)
    if settings.hf_home is not None:
        os.environ["HF_HOME"] = str(settings.hf_home)  # read when huggingface_hub is imported
    import_torchvision()
    _quiet()
    checkpoint = Checkpoint.of(settings, device)
    family = checkpoint.family(settings.family)
    model = checkpoint.load_model(family, _dtype(settings.dtype, device))
    use_patch_products(model)
    model.eval()
    processor = checkpoint.load_processor(family, settings.max_visual_tokens)
    text = model.config.get_text_config()
    prepares = PackedPreprocessor if family.packs else Preprocessor
    preprocessor = prepares(processor, family, text.max_position_embeddings)
    cpu = device.type == "cpu"
    return LoadedModel(
        model=model,
        preprocessor=preprocessor,
        info=_info(checkpoint, family, model, preprocessor.resizing, settings.precision),
        device=torch.device("cpu"),
        padding_side=processor.tokenizer.padding_side,
        pad_token_id=processor.tokenizer.pad_token_id,
        packs=family.packs,
        attention_knee=4 * text.hidden_size + 3 * text.intermediate_size,
        default_batch_tokens=_BATCH_TOKENS_ON_CPU if cpu else _BATCH_TOKENS_ON_ACCELERATOR,
        default_threads=min(_PASSES_ON_CPU, CORES) if cpu and family.packs else 1,
        seconds={"read": time.perf_counter() - started},
    )


def on_device(loaded: LoadedModel, device: torch.device) -> LoadedModel:
    """Move a model that was read to `device`, where it answers in the precision asked for.

    Raises:
        ConfigurationError: see `require_precision`.
    """
    started = time.perf_counter()
    precision, dtype = loaded.info.precision, getattr(torch, loaded.info.dtype)
    require_precision(precision, device, dtype)
    loaded.model.to(device)
    reduce_precision(loaded.model, precision, device)
    info = replace(loaded.info, device=str(next(loaded.model.parameters()).device))
    seconds = {**loaded.seconds, "move": time.perf_counter() - started}
    log.info(
        "loaded %s: %s, %.1f M parameters, %s, %s precision, on %s, %.1f s",
        info.model,
        info.family,
        info.parameters / 1e6,
        info.dtype,
        info.precision,
        info.device,
        sum(seconds.values()),
    )
    return replace(loaded, info=info, device=device, seconds=seconds)


def find_device(name: str) -> torch.device:
    """Return the device that a setting names; for `auto` the best one of this machine.

    Raises:
        ConfigurationError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"PAGEVEC_DEVICE is {name!r}; this machine has {torch.cuda.device_count()} CUDA "
            "devices: name another one (cpu works everywhere), or start where there is one"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError(f"PAGEVEC_DEVICE is {name!r}; this machine has none")
    return device


def cuda_devices() -> int:
    """Return how many CUDA devices this machine has."""
    return torch.cuda.device_count()


def _quiet() -> None:
    # Torchao, which transformers imports where it is there, tells of kernels for other devices.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Progress bars of a fraction of a second, and a warning for every page one pixel wide.
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _info(
    checkpoint: Checkpoint,
    family: Family,
    model: Any,
    resizing: PageResizing | None,
    precision: str,
) -> ModelInfo:
    weights = next(model.parameters())
    return ModelInfo(
        model=checkpoint.name,
        revision=getattr(model.config, "_commit_hash", None) or checkpoint.revision,
        family=family.name,
        dim=getattr(model, family.projection).out_features,
        device=str(weights.device),
        dtype=str(weights.dtype).removeprefix("torch."),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        resizing=resizing,
        notice=checkpoint.notice,
        precision=precision,
    )


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
