"""Modules under the names that they had in pagevec 0.1, with a warning; to be removed in 0.3."""

import importlib
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # it brings a third of what a command imports at its start
    from importlib.abc import Loader

_NAMES = {
    "pagevec.deploy.modal_app": "pagevec.deploy.modal.app",
    "pagevec.deploy.modal_settings": "pagevec.deploy.modal.settings",
    "pagevec.deploy.prices": "pagevec.deploy.modal.prices",
    "pagevec.deploy.ray_app": "pagevec.deploy.ray.app",
    "pagevec.engine.base": "pagevec.engine.api",
    "pagevec.engine.loader": "pagevec.engine.models.loader",
    "pagevec.engine.local": "pagevec.engine.embedder",
    "pagevec.engine.registry": "pagevec.engine.models.registry",
    "pagevec.pixels": "pagevec.images.decode",
    "pagevec.stores.embedded": "pagevec.stores.sqlite.store",
    "pagevec.stores.open": "pagevec.stores",
}


class FormerNames:
    """Finds modules by their former names, after all other finders have failed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the module that was called `fullname`, if there is one."""
        if fullname not in _NAMES:
            return None
        return ModuleSpec(fullname, cast("Loader", _Renamed(_NAMES[fullname])))


class _Renamed:
    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(
            f"{spec.name} is deprecated: it is now {self._name}", DeprecationWarning, stacklevel=2
        )
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the former name there
