"""The model families that are served: one frozen table."""

from dataclasses import dataclass

from pagevec.errors import CheckpointError

# The checkpoint that a GPU serves unless told otherwise.
DEFAULT_CHECKPOINT = "tsystems/colqwen2.5-3b-multilingual-v1.0"

# Beyond this side ratio the resizing of the Qwen families raises (smart_resize in transformers).
_QWEN_SIDE_RATIO = 200


@dataclass(frozen=True)
class Family:
    """A late-interaction family of colpali-engine.

    Attributes:
        name: what the settings call it; model_class, processor_class: in colpali_engine.models.
        model_types: values of `model_type` in a checkpoint's config.json that mean this family.
        projection: the module that gives the vectors; without its weights nothing is served.
        max_side_ratio: of an image's sides, above which the processor refuses it.
        limits_visual_tokens: whether its processor can be told how many a page may have.
        unused: modules that no vector depends on; they are dropped, with their memory.
        packs: whether its inputs go through the model without padding (`engine.packed`).
        texts_need_type_ids: its model attends to a text both ways when it comes alone, and only
            backward when it comes padded, unless it is told that no token is generated.
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
    packs: bool = False


def _qwen(
    name: str, model_class: str, processor_class: str, *model_types: str, packs: bool = False
) -> Family:
    return Family(
        name,
        model_class,
        processor_class,
        model_types,
        max_side_ratio=_QWEN_SIDE_RATIO,
        limits_visual_tokens=True,
        packs=packs,
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
    _qwen("colqwen2", "ColQwen2", "ColQwen2Processor", "qwen2_vl", packs=True),
    _qwen("colqwen2_5", "ColQwen2_5", "ColQwen2_5_Processor", "qwen2_5_vl", packs=True),
    Family(
        "colqwen_omni",
        "ColQwen2_5Omni",
        "ColQwen2_5OmniProcessor",
        ("qwen2_5_omni_thinker", "qwen2_5_omni"),
        max_side_ratio=_QWEN_SIDE_RATIO,
        unused=("audio_tower",),
        packs=True,
    ),
    Family(
        "colidefics3", "ColIdefics3", "ColIdefics3Processor", ("idefics3",), projection="linear"
    ),
    Family("colmodernvbert", "ColModernVBert", "ColModernVBertProcessor", ("modernvbert",)),
    _qwen("colqwen3", "ColQwen3", "ColQwen3Processor", "qwen3_vl", packs=True),
    _qwen("colqwen3_5", "ColQwen3_5", "ColQwen3_5Processor", "qwen3_5"),
    Family("colgemma3", "ColGemma3", "ColGemmaProcessor3", ("gemma3",)),
)


def family_named(name: str) -> Family:
    """Return the family called `name`.

    Raises:
        CheckpointError: there is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise CheckpointError(f"PAGEVEC_FAMILY is {name!r}; known families are {known}")


def family_of(model_type: str | None, checkpoint: str) -> Family:
    """Return the family whose checkpoints say `model_type` in their config.json.

    Raises:
        CheckpointError: there is none.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(t for family in FAMILIES for t in family.model_types)
    raise CheckpointError(
        f"{checkpoint} says model_type {model_type!r} in its config.json; served are {known}. "
        "If it is one of these in disguise, name its family in PAGEVEC_FAMILY"
    )
