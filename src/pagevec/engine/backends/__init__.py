"""Backends: what runs a model on a batch. `load` returns the one that the settings name.

Each backend is imported when it is used: a user's own need not load torch.
"""

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagevec.engine.backends.base import METHODS, Backend
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

if TYPE_CHECKING:
    from pagevec.engine.models.loader import LoadedModel


def load(settings: Settings) -> Backend[Any]:
    """Load the backend that `settings` name: a user's own, or a checkpoint on its device.

    Raises:
        ConfigurationError: the user's backend cannot be found or is incomplete, or the device or
            the precision is not available.
        CheckpointError: the checkpoint cannot be read completely.
    """
    if settings.backend is not None:
        return _load_own(settings.backend, settings)
    from pagevec.engine.backends.self_check import choose_backend
    from pagevec.engine.models.loader import load as load_model

    return choose_backend(load_model(settings), settings.forward)


def backend_of(loaded: "LoadedModel") -> Backend[Any]:
    """Return the backend for a loaded model: without padding where its family allows it."""
    if loaded.family.packed:
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
