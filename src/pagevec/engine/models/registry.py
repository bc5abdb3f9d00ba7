"""The table of the model families that are served, and the checkpoints served by default."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagevec.errors import CheckpointError

DEFAULT_CHECKPOINT = "tsystems/colqwen2.5-3b-multilingual-v1.0"
"""What `--model auto` serves on a GPU."""

PARAMETERS = {DEFAULT_CHECKPOINT: 3_754_885_248}
"""How many parameters a checkpoint has that is not there yet (docs/operations.md)."""

# The model in the package: ColQwen2.5's architecture, small, with its own tokenizer. It is loaded
# like any other checkpoint; `training/` made it, and `weights/README.md` is its model card.
BUNDLED = "bundled"
BUNDLED_REVISION = "drawn-3"
BUNDLED_NOTICE = (
    "a small model for a first look: it finds printed words (Latin letters, 14 points and above "
    "at A4), it does not understand: ask with words that stand on the page; for real work name a "
    "real checkpoint"
)

# Beyond this side ratio the resizing of the Qwen families raises (smart_resize in transformers).
_QWEN_SIDE_RATIO = 200


@dataclass(frozen=True)
class Family:
    """A family of late-interaction models, and the layout of its checkpoints.

    Attributes:
        name: its name in the settings.
        checkpoints: published checkpoints of it, for the documents.
        model_class: name of its model class.
        processor_class: name of its processor class.
        model_types: values of `model_type` in config.json that identify the family.
        module: where its classes are.
        wraps: whether config.json has the backbone's own configuration in `vlm_config`.
        backbone: the module within the model that turns tokens and pages into hidden vectors; ""
            where the model itself does.
        projection: the module that produces the vectors, without whose weights nothing is served;
            None where the hidden vectors are the vectors.
        max_side_ratio: ratio of an image's sides above which the processor refuses the image.
        limits_visual_tokens: whether the visual tokens of a page can be limited.
        visual_tokens: visual tokens of a page at most, unless the settings limit them; None for
            what the checkpoint's processor says.
        unused: modules that no vector depends on; they are dropped to free their memory.
        texts_need_type_ids: whether texts need `token_type_ids` of zeros. Without them this model
            attends in both directions to a text that comes alone, but only backward to a padded
            one.
        packed: whether it runs without padding (`engine.backends.packed`).
        has_grid_positions: whether the visual tokens of a page have two-dimensional positions in
            the language model (M-RoPE).
    """

    name: str
    checkpoints: str
    model_class: str
    processor_class: str
    model_types: tuple[str, ...]
    module: str = "colpali_engine.models"
    wraps: bool = False
    backbone: str = ""
    projection: str | None = "custom_text_proj"
    max_side_ratio: int | None = None
    limits_visual_tokens: bool = False
    visual_tokens: int | None = None
    unused: tuple[str, ...] = ()
    texts_need_type_ids: bool = False
    packed: bool = False
    has_grid_positions: bool = True

    @property
    def library(self) -> str:
        """The package that its classes are from."""
        return self.module.partition(".")[0].replace("_", "-")

    def load_class(self, name: str) -> Any:
        """Return the class `name` of the family's module."""
        return getattr(importlib.import_module(self.module), name)


def _qwen(
    name: str,
    checkpoints: str,
    model_class: str,
    processor_class: str,
    *model_types: str,
    **more: Any,
) -> Family:
    return Family(
        name,
        checkpoints,
        model_class,
        processor_class,
        model_types,
        max_side_ratio=_QWEN_SIDE_RATIO,
        limits_visual_tokens=True,
        **more,
    )


# transformers' own layout: checkpoints whose names often end in `-hf`.
_NATIVE: Mapping[str, Any] = {
    "module": "transformers",
    "wraps": True,
    "backbone": "vlm",
    "projection": "embedding_proj_layer",
}
_QWEN3_LAYOUTS = "pagevec.engine.models.qwen3"

FAMILIES = (
    Family(
        "colpali",
        "vidore/colpali-v1.3",
        "ColPali",
        "ColPaliProcessor",
        ("paligemma", "colpali"),
        unused=("model.lm_head",),
        texts_need_type_ids=True,
    ),
    _qwen(
        "colqwen2", "vidore/colqwen2-v1.0", "ColQwen2", "ColQwen2Processor", "qwen2_vl", packed=True
    ),
    _qwen(
        "colqwen2_5",
        "tsystems/colqwen2.5-3b-multilingual-v1.0",
        "ColQwen2_5",
        "ColQwen2_5_Processor",
        "qwen2_5_vl",
        packed=True,
    ),
    Family(
        "colqwen_omni",
        "vidore/colqwen-omni-v0.1",
        "ColQwen2_5Omni",
        "ColQwen2_5OmniProcessor",
        ("qwen2_5_omni_thinker", "qwen2_5_omni"),
        max_side_ratio=_QWEN_SIDE_RATIO,
        unused=("audio_tower",),
        packed=True,
    ),
    Family(
        "colidefics3",
        "vidore/colSmol-256M, vidore/colSmol-500M",
        "ColIdefics3",
        "ColIdefics3Processor",
        ("idefics3",),
        projection="linear",
    ),
    Family(
        "colmodernvbert",
        "ModernVBERT/colmodernvbert",
        "ColModernVBert",
        "ColModernVBertProcessor",
        ("modernvbert",),
    ),
    _qwen(
        "colqwen3",
        "ColQwen3 as colpali-engine trains it",
        "ColQwen3",
        "ColQwen3Processor",
        "qwen3_vl",
        packed=True,
    ),
    _qwen(
        "colqwen3_5",
        "ColQwen3.5 as colpali-engine trains it",
        "ColQwen3_5",
        "ColQwen3_5Processor",
        "qwen3_5",
    ),
    Family(
        "colgemma3",
        "ColGemma3 as colpali-engine trains it",
        "ColGemma3",
        "ColGemmaProcessor3",
        ("gemma3",),
    ),
    Family(
        "colpali_hf",
        "vidore/colpali-v1.3-hf",
        "ColPaliForRetrieval",
        "ColPaliProcessor",
        ("colpali",),
        **_NATIVE,
    ),
    # transformers gives the visual tokens of a page positions in a row (version 5.20), where
    # colpali-engine, with which these models were trained, gives them positions on the grid.
    _qwen(
        "colqwen2_hf",
        "vidore/colqwen2-v1.0-hf",
        "ColQwen2ForRetrieval",
        "ColQwen2Processor",
        "colqwen2",
        packed=True,
        has_grid_positions=False,
        **_NATIVE,
    ),
    Family(
        "colmodernvbert_hf",
        "ModernVBERT/colmodernvbert-merged",
        "ColModernVBertForRetrieval",
        "ColModernVBertProcessor",
        ("colmodernvbert",),
        **_NATIVE,
    ),
    _qwen(
        "colqwen3_tomoro",
        "TomoroAI/tomoro-colqwen3-embed-4b, -8b",
        "TomoroColQwen3",
        "TomoroColQwen3Processor",
        "colqwen3",
        module=_QWEN3_LAYOUTS,
        visual_tokens=1280,  # the default of the checkpoints' own processor class
        packed=True,
    ),
    _qwen(
        "nemotron_colembed",
        "nvidia/nemotron-colembed-vl-4b-v2, -8b-v2",
        "NemotronColEmbed",
        "NemotronColEmbedProcessor",
        "qwen3_vl_nemotron_embed",
        module=_QWEN3_LAYOUTS,
        projection=None,
        unused=("language_model.norm",),
        packed=True,
    ),
)

ENCODER = "sentence-transformers"
"""The setting in place of a family's name that leaves a model to `engine.backends.encoder`."""

REFUSED = {
    "llama_nemotronvl": "NVIDIA's Llama Nemotron ColEmbed, whose code is in its repository alone",
    "llama_nemoretrievercolembed": "NVIDIA's Llama NemoRetriever ColEmbed, whose code is in its "
    "repository alone",
    "ops_colqwen3": "OpenSearch's Ops-ColQwen3, whose code is in its repository alone",
    "jina_embeddings_v4": "jina-embeddings-v4, whose code is in its repository alone",
}
"""Values of `model_type` that are known and not read here, each with what it stands for."""


def bundled_checkpoint() -> Path:
    """Return the directory of the bundled checkpoint."""
    return Path(__file__).parent / "weights"


def find_family(name: str) -> Family:
    """Return the family called `name`.

    Raises:
        CheckpointError: there is no such family.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    if name == ENCODER:
        raise CheckpointError(
            f"PAGEVEC_FAMILY={name} cannot be read into a memory snapshot: such a model is served "
            "by `pagevec serve`, not on Modal"
        )
    known = ", ".join(family.name for family in FAMILIES)
    raise CheckpointError(f"PAGEVEC_FAMILY={name!r}: expected auto, {ENCODER} or one of {known}")


def identify_family(config: Mapping[str, Any], checkpoint: str) -> Family:
    """Return the family of a checkpoint.

    Args:
        config: its config.json.
        checkpoint: its name, for the error.

    Raises:
        CheckpointError: no served family has this configuration.
    """
    model_type, wraps = config.get("model_type"), "vlm_config" in config
    alike = [family for family in FAMILIES if model_type in family.model_types]
    if alike:
        return next((family for family in alike if family.wraps == wraps), alike[0])
    if isinstance(model_type, str) and model_type in REFUSED:
        raise CheckpointError(
            f"{checkpoint} is {REFUSED[model_type]}: sentence-transformers may serve it "
            "(PAGEVEC_FAMILY=sentence-transformers; docs/models.md)"
        )
    known = ", ".join(dict.fromkeys(t for family in FAMILIES for t in family.model_types))
    raise CheckpointError(
        f"{checkpoint}: model_type {model_type!r} in config.json is not supported (supported: "
        f"{known}); if the model belongs to a supported family, name it in PAGEVEC_FAMILY; "
        "sentence-transformers may serve it (PAGEVEC_FAMILY=sentence-transformers)"
    )
