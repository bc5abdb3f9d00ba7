"""The nine families: what each one's checkpoints consist of, and its colpali-engine classes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pagevec.engine.models.compat import import_torchvision

from . import gemma, idefics, qwen_configs, qwen_files, qwen_vocabularies
from .files import Files, Json
from .vocabulary import Vocabulary

_QWEN_NAMES = ((r"^language_model\.", "model."),)
_PALIGEMMA_NAMES = (
    (r"^model\.model\.language_model\.", "model.language_model.model."),
    (r"^model\.model\.vision_tower\.", "model.vision_tower.vision_model."),
    (r"^model\.model\.", "model."),
)
_PROJECTIONS = "(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj)"


def _targets(part: str, layers: str = _PROJECTIONS) -> str:
    return rf"(.*{part}.*{layers}.*$|.*(custom_text_proj).*$)"


@dataclass(frozen=True)
class Family:
    """What distinguishes a family.

    Attributes:
        model: name of colpali-engine's model class.
        processor: name of colpali-engine's processor class.
        make_vocabulary: builds its vocabulary.
        config: builds its config.json.
        files: the other files of its directory, beside the weights.
        target_modules: the layers that its adapters change, as in PEFT's configuration.
        dim: components of one vector.
        names: patterns of today's tensor names, and their replacement in the published files; the
            first match wins.
        legacy_adapters: whether adapters with such names were published, too.
        unsaved: parameters of the model that the published files do not have.
    """

    model: str
    processor: str
    make_vocabulary: Callable[[], Vocabulary]
    config: Callable[[Vocabulary], Json]
    files: Files
    target_modules: str
    dim: int = 128
    names: tuple[tuple[str, str], ...] = ()
    legacy_adapters: bool = False
    unsaved: tuple[str, ...] = ()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return self.make_vocabulary()

    def published_name(self, name: str) -> str:
        for pattern, replacement in self.names:
            renamed, count = re.subn(pattern, replacement, name)
            if count:
                return renamed
        return name


TABLE: dict[str, Family] = {
    "colpali": Family(
        model="ColPali",
        processor="ColPaliProcessor",
        make_vocabulary=gemma.paligemma_vocabulary,
        config=gemma.paligemma_config,
        files=gemma.PALIGEMMA_FILES,
        target_modules=_targets("(language_model)"),
        names=_PALIGEMMA_NAMES,
        legacy_adapters=True,
        unsaved=("model.lm_head.weight",),
    ),
    "colqwen2": Family(
        model="ColQwen2",
        processor="ColQwen2Processor",
        make_vocabulary=qwen_vocabularies.qwen2_vocabulary,
        config=qwen_configs.qwen2_config,
        files=qwen_files.QWEN2_FILES,
        target_modules=_targets("(model)"),
        names=_QWEN_NAMES,
        legacy_adapters=True,
    ),
    "colqwen2_5": Family(
        model="ColQwen2_5",
        processor="ColQwen2_5_Processor",
        make_vocabulary=qwen_vocabularies.qwen2_5_vocabulary,
        config=qwen_configs.qwen2_5_config,
        files=qwen_files.QWEN2_5_FILES,
        target_modules=_targets("(model)(?!.*visual)"),
        names=_QWEN_NAMES,
        legacy_adapters=True,
    ),
    "colqwen_omni": Family(
        model="ColQwen2_5Omni",
        processor="ColQwen2_5OmniProcessor",
        make_vocabulary=qwen_vocabularies.omni_vocabulary,
        config=qwen_configs.omni_config,
        files=qwen_files.OMNI_FILES,
        target_modules=_targets("(model)(?!.*visual)"),
    ),
    "colidefics3": Family(
        model="ColIdefics3",
        processor="ColIdefics3Processor",
        make_vocabulary=idefics.smolvlm_vocabulary,
        config=idefics.smolvlm_config,
        files=idefics.idefics_files("ColIdefics3Processor", tile=64),
        target_modules=_targets("(model.text_model)"),
    ),
    "colmodernvbert": Family(
        model="ColModernVBert",
        processor="ColModernVBertProcessor",
        make_vocabulary=idefics.modernvbert_vocabulary,
        config=idefics.modernvbert_config,
        files=idefics.idefics_files("ColModernVBertProcessor", tile=32),
        target_modules=_targets("(model.text_model)", "(Wqkv|Wi|Wo)"),
    ),
    "colqwen3": Family(
        model="ColQwen3",
        processor="ColQwen3Processor",
        make_vocabulary=qwen_vocabularies.qwen3_vocabulary,
        config=qwen_configs.qwen3_config,
        files=qwen_files.QWEN3_FILES,
        target_modules=_targets("(model)(?!.*visual)"),
        dim=320,
    ),
    "colqwen3_5": Family(
        model="ColQwen3_5",
        processor="ColQwen3_5Processor",
        make_vocabulary=qwen_vocabularies.qwen3_5_vocabulary,
        config=qwen_configs.qwen3_5_config,
        files=qwen_files.QWEN3_5_FILES,
        target_modules=_targets("(model)(?!.*visual)"),
        dim=320,
    ),
    "colgemma3": Family(
        model="ColGemma3",
        processor="ColGemmaProcessor3",
        make_vocabulary=gemma.gemma3_vocabulary,
        config=gemma.gemma3_config,
        files=gemma.GEMMA3_FILES,
        target_modules=_targets("(language_model)"),
        names=((r"^vision_tower\.", "vision_tower.vision_model."),),
    ),
}

FAMILIES: tuple[str, ...] = tuple(TABLE)
"""The names that `build_checkpoint` knows."""

DIMENSIONS: dict[str, int] = {name: family.dim for name, family in TABLE.items()}
"""Components of one vector of each family."""

LEGACY_ADAPTERS: tuple[str, ...] = tuple(
    name for name, family in TABLE.items() if family.legacy_adapters
)
"""The families whose published adapters have tensor names of an older transformers."""


def model_class(family: str) -> Any:
    """Return colpali-engine's model class of a family."""
    return _colpali_engine(TABLE[family].model)


def processor_class(family: str) -> Any:
    """Return colpali-engine's processor class of a family."""
    return _colpali_engine(TABLE[family].processor)


def _colpali_engine(name: str) -> Any:
    import_torchvision()  # before colpali-engine does
    import colpali_engine.models

    return getattr(colpali_engine.models, name)
