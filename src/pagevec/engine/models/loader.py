"""Load a checkpoint in two steps: weights into host memory, then onto the device.

The steps are separate because a memory snapshot of a process keeps what was read, but no device.
"""

import copy
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pagevec.engine.models.checkpoint import Checkpoint
from pagevec.engine.models.compat import (
    import_torchvision,
    replace_patch_convolutions,
    without_torchao,
)
from pagevec.engine.models.devices import (
    choose_dtype,
    compute_capability,
    find_device,
    require_dtype,
)
from pagevec.engine.models.precision import reduce_precision, require_precision
from pagevec.engine.models.registry import Family
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings
from pagevec.types import ModelInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model on its device, and what its checkpoint comes with.

    Attributes:
        model: the module, of colpali-engine or of the library that the family names.
        processor: the family's processor, which prepares pages.
        text_processor: a copy of it for texts: a fast tokenizer keeps the settings of its last
            call, and changing them while another thread uses it fails with "Already borrowed".
        family: the model family.
        info: what users are told of the model; a backend adds `resizing` and `tells_tokens`.
        device: where the weights are.
        seconds: duration of each stage of loading so far.
    """

    model: Any
    processor: Any
    text_processor: Any
    family: Family
    info: ModelInfo
    device: torch.device
    seconds: Mapping[str, float] = field(default_factory=dict)


def load(settings: Settings) -> LoadedModel:
    """Load the checkpoint that `settings` name onto its device.

    Raises:
        CheckpointError: see `read`.
        ConfigurationError: see `find_device`, `require_dtype` and `require_precision`.
    """
    device = find_device(settings)
    dtype = choose_dtype(settings.dtype, device, compute_capability(device))
    # Before reading, which may take minutes.
    require_dtype(dtype, device)
    require_precision(settings.precision, device, dtype)
    return on_device(_read(settings, device, dtype), device)


def read(settings: Settings, device: torch.device | None = None) -> LoadedModel:
    """Read the checkpoint that `settings` name into this machine's memory.

    Nothing here asks CUDA for its devices, nor does what is imported: a process that has asked once
    where there are none would not see one later, when it is restored from a snapshot.

    Args:
        settings: which checkpoint, dtype and precision.
        device: where the model will run, which decides `auto` settings; it is not touched and need
            not exist yet. Default: the device in the settings, and CUDA for `auto`.

    Returns:
        The model on the CPU; `on_device` moves it.

    Raises:
        CheckpointError: it cannot be found or read, its family is unknown, or not all of its
            weights loaded.
    """
    if device is None:
        device = torch.device("cuda" if settings.device == "auto" else settings.device)
    with without_torchao():
        return _read(settings, device, choose_dtype(settings.dtype, device, None))


def _read(settings: Settings, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    started = time.perf_counter()
    if settings.hf_home is not None:
        os.environ["HF_HOME"] = str(settings.hf_home)  # read when huggingface_hub is imported
    import_torchvision()
    _silence_libraries()
    checkpoint = Checkpoint.of(settings, device)
    family = checkpoint.find_family(settings.family)
    with checkpoint.telling_progress():
        model = checkpoint.load_model(family, dtype)
    replace_patch_convolutions(model)
    model.eval()
    processor = checkpoint.load_processor(family, settings.max_visual_tokens)
    return LoadedModel(
        model=model,
        processor=processor,
        text_processor=copy.deepcopy(processor),
        family=family,
        info=_describe(checkpoint, family, model, settings.precision),
        device=torch.device("cpu"),
        seconds={"read": time.perf_counter() - started},
    )


def on_device(loaded: LoadedModel, device: torch.device) -> LoadedModel:
    """Move a model that was read to `device`, in the precision that the settings asked for.

    Raises:
        ConfigurationError: the weights do not fit into its memory; see also `require_dtype` and
            `require_precision`.
    """
    started = time.perf_counter()
    precision, dtype = loaded.info.precision, getattr(torch, loaded.info.dtype)
    if precision == "fastest" and not _has_choice(loaded, device):
        precision = "full"
    require_dtype(dtype, device)
    require_precision(precision, device, dtype)
    _move(loaded, device)
    reduce_precision(loaded.model, precision, device)
    on = str(next(loaded.model.parameters()).device)
    info = replace(loaded.info, device=on, precision=precision)
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


def _move(loaded: LoadedModel, device: torch.device) -> None:
    try:
        loaded.model.to(device)
    except torch.OutOfMemoryError as error:
        weights = sum(each.nbytes for each in loaded.model.parameters()) / 1e9
        raise ConfigurationError(
            f"{loaded.info.model} does not fit into the memory of {device}: its weights alone take "
            f"{weights:.1f} GB in {loaded.info.dtype}; use a GPU with more that is free, or a "
            "smaller model"
        ) from error


def _has_choice(loaded: LoadedModel, device: torch.device) -> bool:
    """Whether the fastest numbers are not known beforehand: on CUDA, full precision is fastest."""
    exact = loaded.info.dtype == "float32"
    return exact and device.type == "cpu" and loaded.family.packed


def _silence_libraries() -> None:
    # torchao, which transformers imports where it is installed, reports kernels of other devices.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Progress bars for a fraction of a second, and a warning for every page one pixel wide.
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()  # `hub.telling_progress` tells more, also in a log
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _describe(checkpoint: Checkpoint, family: Family, model: Any, precision: str) -> ModelInfo:
    weights = next(model.parameters())
    return ModelInfo(
        model=checkpoint.name,
        revision=getattr(model.config, "_commit_hash", None) or checkpoint.revision,
        family=family.name,
        dim=_find_dim(model, family),
        device=str(weights.device),
        dtype=str(weights.dtype).removeprefix("torch."),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        notice=checkpoint.notice,
        precision=precision,
    )


def _find_dim(model: Any, family: Family) -> int:
    if family.projection is None:
        return int(model.config.get_text_config().hidden_size)
    return int(getattr(model, family.projection).out_features)
