"""Find a checkpoint, identify its family, read all of its weights, merge its LoRA adapter."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pagevec.engine.models.encoder import read_projection, require_same_prompts
from pagevec.engine.models.files import read_json, reading, require_vocabulary, require_whole
from pagevec.engine.models.registry import (
    BUNDLED,
    BUNDLED_NOTICE,
    BUNDLED_REVISION,
    DEFAULT_CHECKPOINT,
    Family,
    bundled_checkpoint,
    find_family,
    identify_family,
)
from pagevec.errors import CheckpointError, ConfigurationError
from pagevec.settings import Settings

_KEYS_SHOWN = 4
_TRIAL_SIDE = 56  # pixels of a page that a processor is tried with


Faults = Mapping[str, list[str]]
"""Keys at fault when weights were loaded, by the kind of fault."""


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model, on the hub or in a directory.

    Attributes:
        name: the name that users see.
        source: hub name or directory.
        revision: commit, tag or branch, where the settings pin one.
        token: access token of the hub.
        offline: whether to use local files only.
        base: for a LoRA adapter, the checkpoint that it adapts.
        notice: what a user must know of the model.
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
        """Find the checkpoint that `settings` name; `auto` depends on `device`.

        Raises:
            CheckpointError: it cannot be found.
        """
        name = settings.model
        if name == "auto":
            name = DEFAULT_CHECKPOINT if device.type == "cuda" else BUNDLED
        if name == BUNDLED:
            source = str(bundled_checkpoint())
            return cls(name, source, BUNDLED_REVISION, None, True, notice=BUNDLED_NOTICE)
        token = settings.huggingface_token
        found = cls(
            name=name,
            source=name,
            revision=settings.revision,
            token=token.get_secret_value() if token else None,
            offline=settings.offline,
        )
        with reading(f"{name} cannot be read"):
            return found._find(name, settings.revision)._with_base()

    def find_family(self, name: str) -> Family:
        """Return the family called `name`, or for `auto` the one that config.json indicates.

        Raises:
            CheckpointError: the family is unknown, or there is no config.json.
        """
        if name != "auto":
            return find_family(name)
        source, pinned = self._weights_source
        with reading(f"{source} cannot be read"):
            config = self._read_json("config.json", source, pinned)
        if config is None:
            raise CheckpointError(f"{source} has no config.json: it is not a model")
        return identify_family(config, source)

    def load_model(self, family: Family, dtype: torch.dtype) -> Any:
        """Read the model into the CPU's memory and merge its adapter, if it is one.

        Raises:
            CheckpointError: files are missing or unreadable, or not all weights loaded.
        """
        source, pinned = self._weights_source
        model_class = family.load_class(family.model_class)
        with reading(f"{source} cannot be read", self._folder(source, pinned)):
            model, report = self._read_weights(model_class, dtype)
            width = _find_width(report, family)
            if width is not None:
                model, report = self._read_weights(
                    _with_projection(model_class, family, width), dtype
                )
        faults = find_faults(report)
        if self.base is not None:
            with reading(
                f"the adapter {self.source} does not fit its base", self._folder(self.source, True)
            ):
                replaced = _merge_adapter(model, self.source, self.hub_options(True))
                faults = _without(faults, replaced)
        if _lacks_only(family.projection, faults):
            faults = self._take_projection(model, family, faults)
        require_all_loaded(self.source, faults)
        for name in family.unused:
            model.set_submodule(name, torch.nn.Identity())
        return model

    def load_processor(self, family: Family, max_visual_tokens: int | None) -> Any:
        """Read the processor; an adapter without one of its own uses its base's.

        Args:
            family: whose processor class reads it.
            max_visual_tokens: visual tokens of a page at most; None for the checkpoint's own limit.

        Raises:
            CheckpointError: its files are missing or unreadable.
            ConfigurationError: this family's visual tokens cannot be limited.
        """
        if max_visual_tokens is not None and not family.limits_visual_tokens:
            raise ConfigurationError(
                f"PAGEVEC_MAX_VISUAL_TOKENS={max_visual_tokens}: the visual tokens of "
                f"{family.name} cannot be limited; leave it unset"
            )
        processor_class = family.load_class(family.processor_class)
        own = self._read_json("preprocessor_config.json", self.source) or self._read_json(
            "processor_config.json", self.source
        )
        source, pinned = (self.source, True) if own or not self.base else (self.base, False)
        folder = self._folder(source, pinned)
        with reading(f"the processor of {source} cannot be read", folder):
            processor = processor_class.from_pretrained(source, **self.hub_options(pinned))
            visual_tokens = max_visual_tokens or family.visual_tokens
            if visual_tokens is not None:
                _limit_visual_tokens(processor.image_processor, visual_tokens)
            if (folder := folder or self._folder(source, pinned)) is not None:
                require_vocabulary(folder)
            # One that lacks a file, such as a template, often fails only when it is used.
            processor.process_queries(["page"])
            processor.process_images([Image.new("RGB", (_TRIAL_SIDE, _TRIAL_SIDE), "white")])
        return processor

    def telling_progress(self) -> AbstractContextManager[None]:
        """Log what the block downloads of this checkpoint, if it does."""
        from pagevec.engine.models import hub

        named = {self.source, self.base or self.source}
        on_hub = sorted(one for one in named if not self.offline and not Path(one).exists())
        return hub.telling_progress(on_hub, self.token)

    @property
    def _weights_source(self) -> tuple[str, bool]:
        """Where the weights are that an adapter adapts, and whether the revision is theirs."""
        return (self.source, True) if self.base is None else (self.base, False)

    def _find(self, source: str, revision: str | None) -> "Checkpoint":
        """Check that `source` is a whole folder or can be had; without the hub, from the cache."""
        from pagevec.engine.models import hub  # where HF_HOME is read

        folder = Path(source)
        if folder.exists() or folder.is_absolute():
            require_whole(folder)
            return self
        if self.offline:
            hub.require_cached(source, revision)
            return self
        return replace(self, offline=not hub.is_reachable(source, revision, self.token))

    def _take_projection(self, model: Any, family: Family, faults: Faults) -> Faults:
        """Take the projection from a module of sentence-transformers, if there is one."""
        with reading(f"{self.source} cannot be read"):
            projection = read_projection(self.source, self.find_file)
            if projection is None:
                return faults
            dtype = next(model.parameters()).dtype
            setattr(model, str(family.projection), projection.to(dtype))
            require_same_prompts(self.source, self.load_processor(family, None), self.find_file)
        return {}

    def _read_weights(self, model_class: Any, dtype: torch.dtype) -> tuple[Any, Mapping[str, Any]]:
        """Return the model, and transformers' loading report."""
        source, pinned = self._weights_source
        model, report = model_class.from_pretrained(
            source,
            config=self._read_config(model_class.config_class),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report has them
            **self.hub_options(pinned),
        )
        return model, report

    def _read_config(self, config_class: Any) -> Any:
        """Return the configuration, also where config.json calls its type by another name.

        transformers would take no part of such a configuration, but the sizes of its own default
        model: gigabytes of it, at random.
        """
        source, pinned = self._weights_source
        wanted = config_class.model_type
        content, _ = config_class.get_config_dict(source, **self.hub_options(pinned))
        if content.get("model_type") == wanted:
            return config_class.from_pretrained(source, **self.hub_options(pinned))
        parts = [part for part in content.values() if isinstance(part, dict)]
        inner = (part for part in parts if part.get("model_type") == wanted)
        whole = next((part for part in inner if "vision_config" in part), content)
        return config_class.from_dict({**whole, "model_type": wanted})

    def _folder(self, source: str, pinned: bool) -> Path | None:
        """Return the folder that has the files of `source`, or None before they are there."""
        from pagevec.engine.models import hub

        return hub.cached_folder(source, self.revision if pinned else None)

    def _with_base(self) -> "Checkpoint":
        adapter = self._read_json("adapter_config.json", self.source)
        if adapter is None:
            return self
        base = adapter.get("base_model_name_or_path")
        if not base:
            raise CheckpointError(f"{self.source}/adapter_config.json does not name a base model")
        try:
            return replace(self._find(str(base), None), base=str(base))
        except CheckpointError as error:
            raise CheckpointError(f"the base model of the adapter {self.source}: {error}") from None

    def _read_json(self, file: str, source: str, pinned: bool = True) -> dict[str, Any] | None:
        path = self.find_file(file, source, pinned)
        return None if path is None else read_json(path)

    def find_file(self, name: str, source: str | None = None, pinned: bool = True) -> Path | None:
        """Return the path of a file, from the hub if need be; None if there is none.

        Args:
            name: of the file, perhaps in a folder.
            source: whose file; by default the checkpoint's own.
            pinned: whether the revision is of that source.
        """
        from transformers.utils import cached_file

        options = {"_raise_exceptions_for_missing_entries": False, **self.hub_options(pinned)}
        path = cached_file(source or self.source, name, **options)
        return None if path is None else Path(path)

    def hub_options(self, pinned: bool = True) -> dict[str, Any]:
        """Return how libraries are to reach the hub; `pinned`: see `find_file`."""
        # The pinned revision is the checkpoint's own, never that of an adapter's base.
        return {
            "revision": self.revision if pinned else None,
            "token": self.token,
            "local_files_only": self.offline,
        }


def _find_width(report: Mapping[str, Any], family: Family) -> int | None:
    """Return the width of a checkpoint's vectors, where it is another than its class has."""
    wrong = {key: shape for key, shape, _ in report.get("mismatched_keys") or ()}
    shape = wrong.pop(f"{family.projection}.weight", None)
    wrong.pop(f"{family.projection}.bias", None)
    return None if shape is None or wrong else int(shape[0])


def _with_projection(model_class: Any, family: Family, width: int) -> Any:
    """Return `model_class` with vectors of `width` components: its own has a fixed number."""

    class Resized(model_class):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            former = getattr(self, str(family.projection))
            with_bias = former.bias is not None
            projection = torch.nn.Linear(former.in_features, width, bias=with_bias)
            setattr(self, str(family.projection), projection)

    return Resized


def _limit_visual_tokens(image_processor: Any, count: int) -> None:
    cell = image_processor.patch_size * image_processor.merge_size
    image_processor.max_pixels = image_processor.size["longest_edge"] = count * cell**2


def _merge_adapter(model: Any, source: str, options: dict[str, Any]) -> set[str]:
    """Merge the LoRA adapter at `source` into the weights of `model`, in place.

    The layers are plain ones again afterwards, so an adapter costs nothing per batch. The base may
    lack weights that the adapter brings whole, such as the projection (PEFT's `modules_to_save`).

    Args:
        model: the base model.
        source: hub name or directory of the adapter.
        options: for the hub.

    Returns:
        The names of layers that the adapter brought whole.

    Raises:
        CheckpointError: not all tensors of the adapter were used, or some were missing.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    # Published adapters carry the tensor names of older versions of transformers; colpali-engine's
    # mapping for whole checkpoints applies to them too.
    names = getattr(type(model), "_checkpoint_conversion_mapping", {})
    report = model.load_adapter(
        source,
        weight_mapping=get_model_conversion_mapping(model, key_mapping=names),
        adapter_kwargs=options,
    )
    require_all_loaded(source, find_faults(vars(report)))
    return _merge_layers(model)


def _merge_layers(model: Any) -> set[str]:
    """Make every adapted layer a plain one; return the names of layers that were replaced whole."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    replaced = set()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            model.set_submodule(name, layer.get_base_layer())
        elif isinstance(layer, ModulesToSaveWrapper):
            replaced.add(name)
            model.set_submodule(name, layer.modules_to_save[layer.active_adapter])
    model._hf_peft_config_loaded = False
    return replaced


def find_faults(report: Mapping[str, Any]) -> Faults:
    """Return the keys at fault in transformers' loading report."""
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return {kind: sorted(map(str, report[kind])) for kind in kinds if report.get(kind)}


def _without(faults: Faults, replaced: set[str]) -> Faults:
    """Return `faults` without missing weights of layers that were replaced."""
    missing = [
        key for key in faults.get("missing_keys", []) if key.rpartition(".")[0] not in replaced
    ]
    return {kind: keys for kind, keys in {**faults, "missing_keys": missing}.items() if keys}


def _lacks_only(layer: str | None, faults: Faults) -> bool:
    """Whether nothing is wrong but that all weights of `layer` are missing."""
    missing = [f"{layer}.bias", f"{layer}.weight"]
    return layer is not None and faults == {"missing_keys": missing}


def require_all_loaded(source: str, faults: Faults) -> None:
    """Raise if anything went wrong with a weight.

    Raises:
        CheckpointError: the checkpoint called `source` did not load completely.
    """
    if faults:
        listed = "; ".join(_list_keys(kind, keys) for kind, keys in faults.items())
        raise CheckpointError(
            f"{source} did not load completely ({listed}): it is damaged, of another family "
            "(PAGEVEC_FAMILY), or made for another version of transformers"
        )


def _list_keys(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    return f"{kind.replace('_', ' ')}: {', '.join(keys[:_KEYS_SHOWN])}{more}"
