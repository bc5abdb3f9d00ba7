"""Backends: what runs a model on a batch. `load` returns the one that the settings name.

Each backend is imported when it is used: a user's own need not load torch.
"""

import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagevec.engine.backends.base import METHODS, Backend
from pagevec.engine.models.registry import ENCODER
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings
from pagevec.types import ModelInfo

if TYPE_CHECKING:
    from pagevec.engine.models.loader import LoadedModel

log = logging.getLogger(__name__)


def load(settings: Settings) -> Backend[Any]:
    """Load the backend that `settings` name: a user's own, or a checkpoint on its device.

    Raises:
        ConfigurationError: the user's backend cannot be found or is incomplete, or the device or
            the precision is not available.
        CheckpointError: the checkpoint cannot be read completely.
    """
    if settings.backend is not None:
        return _load_own(settings.backend, settings)
    if settings.family == ENCODER:
        from pagevec.engine.backends.encoder import EncoderBackend

        return EncoderBackend(settings)
    from pagevec.engine.models.loader import load as load_model

    return choose_backend(load_model(settings), settings.forward, lambda: load_model(settings))


def choose_backend(
    loaded: "LoadedModel", forward: str, again: "Callable[[], LoadedModel]"
) -> Backend[Any]:
    """Return the backend that serves a loaded model, after its first page and query.

    Args:
        loaded: the model.
        forward: `packed`, `padded`, or `auto`: packed where the model's family allows it, unless
            its vectors differ from those of colpali-engine's own forward pass, which is the
            padded one.
        again: loads the model once more.

    Raises:
        CheckpointError: the first page and query do not go through the model.
    """
    from pagevec.engine.backends.fastest import use_fastest
    from pagevec.engine.backends.packed.backend import PackedBackend
    from pagevec.engine.backends.padded import PaddedBackend
    from pagevec.engine.backends.self_check import embed_samples, find_fault
    from pagevec.engine.models.files import reading

    # What does not fit together in a checkpoint may load, and fail with the first input.
    with reading(f"a first text and page do not go through {_describe(loaded.info)}"):
        if loaded.info.precision == "fastest":
            loaded = use_fastest(loaded, again)
        backend = backend_of(loaded, forward)
        if forward != "auto" or not isinstance(backend, PackedBackend):
            embed_samples(backend)
            return backend
        fault = find_fault(backend, PaddedBackend(loaded))
        if fault is None:
            return backend
        log.error("the packed forward pass %s: the padded one serves, which is slower", fault)
        return PaddedBackend(loaded, fallback=fault)


def _describe(info: ModelInfo) -> str:
    """Name the model; in float16, whose largest number is 65,504, with a way out."""
    too_small = info.dtype == "float16"
    hint = " in float16, whose range may not suffice (PAGEVEC_DTYPE=float32 has it)"
    return info.model + (hint if too_small else "")


def backend_of(loaded: "LoadedModel", forward: str = "auto") -> Backend[Any]:
    """Return the backend for a loaded model, unchecked: packed where its family allows it.

    Args:
        loaded: the model.
        forward: see `choose_backend`.
    """
    if loaded.family.packed and forward != "padded":
        from pagevec.engine.backends.packed.backend import PackedBackend

        return PackedBackend(loaded)
    from pagevec.engine.backends.padded import PaddedBackend

    return PaddedBackend(loaded)


def _load_own(path: str, settings: Settings) -> Backend[Any]:
    """Import `package.module:name` and call it, with `settings` if it has such a parameter."""
    factory = _import_factory(path)
    takes_settings = "settings" in inspect.signature(factory).parameters
    backend: Backend[Any] = factory(settings=settings) if takes_settings else factory()
    missing = [name for name in METHODS if not callable(getattr(backend, name, None))]
    if missing:
        raise ConfigurationError(
            f"backend {path!r} has no method {', '.join(missing)} (see docs/backends.md)"
        )
    return backend


def _import_factory(path: str) -> Any:
    module_name, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does, and the script `pagevec` does not
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ConfigurationError(
            f"backend {path!r}: there is no module {error.name!r} in {folder} "
            "or among the installed packages"
        ) from None
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigurationError(
            f"backend {path!r}: module {module_name!r} has no class or function {name!r}"
        )
    return factory
