"""A checkpoint's files: where they are, which family they are of, how they are read completely."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pagevec.engine.models import bundled
from pagevec.engine.models.adapter import merge_adapter
from pagevec.engine.models.registry import DEFAULT_CHECKPOINT, Family, family_named, family_of
from pagevec.engine.models.report import faults_in, refuse_faults
from pagevec.errors import CheckpointError, ConfigurationError
from pagevec.settings import Settings


@dataclass(frozen=True)
class Checkpoint:
    """Files on the hub or in a directory; of an adapter, its base too.

    Attributes:
        name: as users know it; source: hub name or directory; revision: as the settings pin it.
        base: what an adapter is made for, where it is one.
        notice: what a user must know of it.
    """

    name: str
    source: str
    revision: str | None
    token: str | None
    offline: bool
    base: str | None = None
    notice: str | None = None

    @classmethod
    def of(cls, settings: Settings, device: torch.device) -> "Checkpoint":
        """Find the checkpoint that `settings` name.

        Raises:
            CheckpointError: there is none there.
        """
        name = settings.model
        if name == "auto":
            name = DEFAULT_CHECKPOINT if device.type == "cuda" else bundled.NAME
        if name == bundled.NAME:
            source = str(bundled.bundled_checkpoint())
            return cls(name, source, bundled.REVISION, None, True, notice=bundled.NOTICE)
        token = settings.huggingface_token
        found = cls(
            name=name,
            source=name,
            revision=settings.revision,
            token=token.get_secret_value() if token else None,
            offline=settings.offline,
        )
        return found._with_base()

    def family(self, named: str) -> Family:
        """Return the family, `named` in the settings or read from the config.json."""
        if named != "auto":
            return family_named(named)
        config = self._read_json("config.json", self.base or self.source, pinned=self.base is None)
        if config is None:
            raise CheckpointError(f"{self.base or self.source} has no config.json")
        return family_of(config.get("model_type"), self.base or self.source)

    def load_model(self, family: Family, dtype: torch.dtype) -> Any:
        """Return the model on the CPU, its adapter merged.

        Raises:
            CheckpointError: files are missing or unreadable, or weights did not load.
        """
        model_class = _colpali_engine(family.model_class)
        source, pinned = (self.source, True) if self.base is None else (self.base, False)
        try:
            model, report = model_class.from_pretrained(
                source, dtype=dtype, output_loading_info=True, **self._hub(pinned)
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{source} cannot be loaded: {error}") from error
        if self.base is None:
            refuse_faults(source, faults_in(report))
        else:
            merge_adapter(model, self.source, self._hub(True), report)
        for name in family.unused:
            model.set_submodule(name, torch.nn.Identity())
        return model

    def load_processor(self, family: Family, max_visual_tokens: int | None) -> Any:
        """Return the processor: an adapter's own where it has one, else its base's.

        Raises:
            CheckpointError: its files are missing or unreadable.
            ConfigurationError: this family's visual tokens cannot be limited.
        """
        if max_visual_tokens is not None and not family.limits_visual_tokens:
            raise ConfigurationError(
                f"PAGEVEC_MAX_VISUAL_TOKENS is {max_visual_tokens}, but pages of {family.name} "
                "have a number of visual tokens of their own: leave it out"
            )
        processor_class = _colpali_engine(family.processor_class)
        wanted = {} if max_visual_tokens is None else {"max_num_visual_tokens": max_visual_tokens}
        own = self._read_json("preprocessor_config.json", self.source) or self._read_json(
            "processor_config.json", self.source
        )
        source, pinned = (self.source, True) if own or not self.base else (self.base, False)
        try:
            return processor_class.from_pretrained(source, **wanted, **self._hub(pinned))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the processor of {source} cannot be read: {error}") from error

    def _with_base(self) -> "Checkpoint":
        adapter = self._read_json("adapter_config.json", self.source)
        if adapter is None:
            return self
        base = adapter.get("base_model_name_or_path")
        if not base:
            raise CheckpointError(f"{self.source}/adapter_config.json names no base model")
        return Checkpoint(**{**vars(self), "base": str(base)})

    def _read_json(self, file: str, source: str, pinned: bool = True) -> dict[str, Any] | None:
        from transformers.utils import cached_file

        try:
            path = cached_file(
                source, file, _raise_exceptions_for_missing_entries=False, **self._hub(pinned)
            )
        except OSError as error:
            raise CheckpointError(f"{source} cannot be found: {error}") from error
        if path is None:
            return None
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return content

    def _hub(self, pinned: bool) -> dict[str, Any]:
        # The pinned revision is the checkpoint's own, never that of an adapter's base.
        return {
            "revision": self.revision if pinned else None,
            "token": self.token,
            "local_files_only": self.offline,
        }


def _colpali_engine(name: str) -> Any:
    import colpali_engine.models

    return getattr(colpali_engine.models, name)
