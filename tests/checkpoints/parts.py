"""What the configs and processor files of several families have in common."""

from typing import Any

from .files import Json
from .vocabulary import Vocabulary

HIDDEN = 64
VISION_HIDDEN = 32
LAYERS = 2

HALVES = [0.5, 0.5, 0.5]
"""The mean and the deviation of a pixel that most image processors assume."""


def text_sizes(vocabulary: Vocabulary) -> Json:
    return {
        "attention_dropout": 0.0,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "use_cache": True,
        "vocab_size": vocabulary.size,
    }


def siglip(image_size: int, patch_size: int = 14) -> Json:
    return {
        "hidden_size": VISION_HIDDEN,
        "image_size": image_size,
        "intermediate_size": 48,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "patch_size": patch_size,
        "vision_use_head": False,
    }


def image_processor(kind: str, processor: str | None, **fields: Any) -> Json:
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": kind,
        **({"processor_class": processor} if processor else {}),
        "rescale_factor": 0.00392156862745098,
        **fields,
    }
