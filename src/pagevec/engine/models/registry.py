"""The table of the model families that are served, and the checkpoints served by default."""

from dataclasses import dataclass
from pathlib import Path

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
    """A late-interaction family of colpali-engine.

    Attributes:
        name: its name in the settings.
        model_class: name of its model class in colpali_engine.models.
        processor_class: name of its processor class in colpali_engine.models.
        model_types: values of `model_type` in config.json that identify the family.
        projection: the module that produces the vectors; without its weights nothing is served.
        max_side_ratio: ratio of an image's sides above which the processor refuses the image.
        limits_visual_tokens: whether the visual tokens of a page can be limited.
        unused: modules that no vector depends on; they are dropped to free their memory.
        texts_need_type_ids: whether texts need `token_type_ids` of zeros. Without them this model
            attends in both directions to a text that comes alone, but only backward to a padded
            one.
        packed: whether it runs without padding (`engine.backends.packed`).
    """

    name: str
    model_class: str
    processor_class: str
    model_types: tuple[str, ...]
    projection: str = "custom_text_proj"
    max_side_ratio: int | None = None
    limits_visual_tokens: bool = False
    unused: tuple[str, ...] = ()
    texts_need_type_ids: bool = False
    packed: bool = False


def _qwen(
    name: str, model_class: str, processor_class: str, *model_types: str, packed: bool = False
) -> Family:
    return Family(
        name,
        model_class,
        processor_class,
        model_types,
        max_side_ratio=_QWEN_SIDE_RATIO,
        limits_visual_tokens=True,
        packed=packed,
    )


FAMILIES = (
    Family(
        "colpali",
        "ColPali",
        "ColPaliProcessor",
        ("paligemma", "colpali"),
        unused=("model.lm_head",),
        texts_need_type_ids=True,
    ),
    _qwen("colqwen2", "ColQwen2", "ColQwen2Processor", "qwen2_vl", packed=True),
    _qwen("colqwen2_5", "ColQwen2_5", "ColQwen2_5_Processor", "qwen2_5_vl", packed=True),
    Family(
        "colqwen_omni",
        "ColQwen2_5Omni",
        "ColQwen2_5OmniProcessor",
        ("qwen2_5_omni_thinker", "qwen2_5_omni"),
        max_side_ratio=_QWEN_SIDE_RATIO,
        unused=("audio_tower",),
        packed=True,
    ),
    Family(
        "colidefics3", "ColIdefics3", "ColIdefics3Processor", ("idefics3",), projection="linear"
    ),
    Family("colmodernvbert", "ColModernVBert", "ColModernVBertProcessor", ("modernvbert",)),
    _qwen("colqwen3", "ColQwen3", "ColQwen3Processor", "qwen3_vl", packed=True),
    _qwen("colqwen3_5", "ColQwen3_5", "ColQwen3_5Processor", "qwen3_5"),
    Family("colgemma3", "ColGemma3", "ColGemmaProcessor3", ("gemma3",)),
)


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
    known = ", ".join(family.name for family in FAMILIES)
    raise CheckpointError(f"PAGEVEC_FAMILY={name!r}: expected auto or one of {known}")


def identify_family(model_type: str | None, checkpoint: str) -> Family:
    """Return the family that `model_type` in a checkpoint's config.json stands for.

    Args:
        model_type: the value in config.json, or None where it has none.
        checkpoint: the checkpoint's name, for the error.

    Raises:
        CheckpointError: no served family has this type.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(t for family in FAMILIES for t in family.model_types)
    raise CheckpointError(
        f"{checkpoint}: model_type {model_type!r} in config.json is not supported (supported: "
        f"{known}); if the model belongs to a supported family, name it in PAGEVEC_FAMILY"
    )
