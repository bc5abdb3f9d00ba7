"""The processor files of the five Qwen families."""

from typing import Any

from . import templates
from .files import Files, Json
from .parts import HALVES, image_processor

_QWEN2_PIXELS = {"min_pixels": 4 * 28 * 28, "max_pixels": 128 * 28 * 28}


def _qwen2(processor: str, size: Json, **fields: Any) -> Json:
    return image_processor(
        "Qwen2VLImageProcessor",
        processor,
        do_convert_rgb=True,
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
        **_QWEN2_PIXELS,
        merge_size=2,
        patch_size=14,
        resample=3,
        size=size,
        temporal_patch_size=2,
        **fields,
    )


QWEN2_FILES: Files = {
    "chat_template.json": {"chat_template": templates.QWEN},
    # Written by transformers 4.45 to 4.48: `size` holds the pixel limits.
    "preprocessor_config.json": _qwen2("ColQwen2Processor", _QWEN2_PIXELS),
}

_EDGES = {
    "longest_edge": _QWEN2_PIXELS["max_pixels"],
    "shortest_edge": _QWEN2_PIXELS["min_pixels"],
}

QWEN2_5_FILES: Files = {
    "chat_template.json": {"chat_template": templates.QWEN},
    "preprocessor_config.json": _qwen2("ColQwen2_5_Processor", _EDGES),
}

# One file describes the image processor and the audio feature extractor together.
OMNI_FILES: Files = {
    "chat_template.json": {"chat_template": templates.QWEN_OMNI},
    "preprocessor_config.json": _qwen2(
        "ColQwen2_5OmniProcessor",
        _EDGES,
        chunk_length=1,
        dither=0.0,
        feature_extractor_type="WhisperFeatureExtractor",
        feature_size=16,
        hop_length=160,
        n_fft=400,
        n_samples=16000,
        nb_max_frames=100,
        padding_side="left",
        padding_value=0.0,
        return_attention_mask=True,
        sampling_rate=16000,
    ),
}

_QWEN3_PIXELS: Json = {
    "image_mean": HALVES,
    "image_std": HALVES,
    "merge_size": 2,
    "patch_size": 16,
    "size": {"longest_edge": 128 * 32 * 32, "shortest_edge": 4 * 32 * 32},
    "temporal_patch_size": 2,
}

QWEN3_FILES: Files = {
    "chat_template.jinja": templates.QWEN,
    "preprocessor_config.json": image_processor(
        "Qwen2VLImageProcessorFast", "ColQwen3Processor", **_QWEN3_PIXELS
    ),
    "video_preprocessor_config.json": {
        "processor_class": "ColQwen3Processor",
        "video_processor_type": "Qwen3VLVideoProcessor",
        **_QWEN3_PIXELS,
    },
}

# transformers 5 saves every part of a processor in one file.
QWEN3_5_FILES: Files = {
    "chat_template.jinja": templates.QWEN,
    "processor_config.json": {
        "image_processor": image_processor("Qwen2VLImageProcessor", None, **_QWEN3_PIXELS),
        "processor_class": "ColQwen3_5Processor",
        "video_processor": {
            "do_sample_frames": True,
            "fps": 2,
            "video_processor_type": "Qwen3VLVideoProcessor",
            **_QWEN3_PIXELS,
        },
    },
}
