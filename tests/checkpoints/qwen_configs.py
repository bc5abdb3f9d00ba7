"""The `config.json` of the five Qwen families."""

from .files import Json
from .parts import HIDDEN, LAYERS, VISION_HIDDEN, text_sizes
from .vocabulary import Vocabulary

_MROPE = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}


def _vision_ids(vocabulary: Vocabulary) -> Json:
    return {
        "image_token_id": vocabulary.id("<|image_pad|>"),
        "video_token_id": vocabulary.id("<|video_pad|>"),
        "vision_end_token_id": vocabulary.id("<|vision_end|>"),
        "vision_start_token_id": vocabulary.id("<|vision_start|>"),
    }


def _flat(vocabulary: Vocabulary, vision: Json) -> Json:
    """The old one-level config, whose text fields stand at the top."""
    return {
        **text_sizes(vocabulary),
        **_vision_ids(vocabulary),
        "bos_token_id": vocabulary.id("<|endoftext|>"),
        "eos_token_id": vocabulary.id("<|im_end|>"),
        "hidden_act": "silu",
        "max_window_layers": LAYERS,
        "rope_scaling": _MROPE,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.49.0",
        "use_sliding_window": False,
        "vision_config": vision,
        "vision_token_id": vocabulary.id("<|vision_pad|>"),
    }


def qwen2_config(vocabulary: Vocabulary) -> Json:
    vision = {
        "depth": LAYERS,
        "embed_dim": VISION_HIDDEN,
        "hidden_size": HIDDEN,
        "in_chans": 3,
        "mlp_ratio": 2,
        "model_type": "qwen2_vl",
        "num_heads": 2,
        "spatial_patch_size": 14,
    }
    return _flat(vocabulary, vision) | {"model_type": "qwen2_vl"}


def _windowed_vision() -> Json:
    """Block 0 attends within windows of 4 x 4 merged patches, block 1 to the whole image."""
    return {
        "depth": LAYERS,
        "fullatt_block_indexes": [1],
        "hidden_act": "silu",
        "hidden_size": VISION_HIDDEN,
        "in_chans": 3,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 112,
    }


def qwen2_5_config(vocabulary: Vocabulary) -> Json:
    vision = _windowed_vision() | {"model_type": "qwen2_5_vl"}
    return _flat(vocabulary, vision) | {"model_type": "qwen2_5_vl"}


def omni_config(vocabulary: Vocabulary) -> Json:
    return {
        "audio_config": {
            "activation_function": "gelu",
            "d_model": 32,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "encoder_layers": 1,
            "max_source_positions": 100,
            "model_type": "qwen2_5_omni_audio_encoder",
            "n_window": 10,
            "num_hidden_layers": 1,
            "num_mel_bins": 16,
            "output_dim": HIDDEN,
            "scale_embedding": False,
        },
        "audio_end_token_id": vocabulary.id("<|audio_eos|>"),
        "audio_start_token_id": vocabulary.id("<|audio_bos|>"),
        "audio_token_index": vocabulary.id("<|AUDIO|>"),
        "bos_token_id": vocabulary.id("<|im_start|>"),
        "eos_token_id": vocabulary.id("<|im_end|>"),
        "ignore_index": -100,
        "image_token_index": vocabulary.id("<|IMAGE|>"),
        "initializer_range": 0.02,
        "model_type": "qwen2_5_omni_thinker",
        "pad_token_id": vocabulary.id("<|endoftext|>"),
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "text_config": {
            **text_sizes(vocabulary),
            "hidden_act": "silu",
            "max_window_layers": LAYERS,
            "model_type": "qwen2_5_omni_text",
            "rope_scaling": _MROPE,
            "rope_theta": 1000000.0,
            "sliding_window": 32768,
            "use_sliding_window": False,
        },
        "torch_dtype": "float32",
        "transformers_version": "4.53.0",
        "user_token_id": vocabulary.id("user"),
        "video_token_index": vocabulary.id("<|VIDEO|>"),
        "vision_config": _windowed_vision() | {"model_type": "qwen2_5_omni_vision_encoder"},
        "vision_end_token_id": vocabulary.id("<|vision_eos|>"),
        "vision_start_token_id": vocabulary.id("<|vision_bos|>"),
        "vision_token_id": vocabulary.id("<|vision_pad|>"),
    }


def _qwen3_vision(model_type: str) -> Json:
    return {
        "depth": LAYERS,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": VISION_HIDDEN,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "model_type": model_type,
        "num_heads": 2,
        "num_position_embeddings": 64,
        "out_hidden_size": HIDDEN,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }


def qwen3_config(vocabulary: Vocabulary) -> Json:
    return {
        **_vision_ids(vocabulary),
        "dtype": "float32",
        "model_type": "qwen3_vl",
        "text_config": {
            **text_sizes(vocabulary),
            "attention_bias": False,
            "bos_token_id": vocabulary.id("<|endoftext|>"),
            "dtype": "float32",
            "eos_token_id": vocabulary.id("<|im_end|>"),
            "head_dim": 16,
            "hidden_act": "silu",
            "model_type": "qwen3_vl_text",
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [4, 2, 2],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": True,
        },
        "tie_word_embeddings": True,
        "transformers_version": "4.57.1",
        "vision_config": _qwen3_vision("qwen3_vl") | {"deepstack_visual_indexes": [0, 1]},
    }


def qwen3_5_config(vocabulary: Vocabulary) -> Json:
    return {
        **_vision_ids(vocabulary),
        "dim": 320,
        "dtype": "float32",
        "model_type": "qwen3_5",
        "text_config": {
            **text_sizes(vocabulary),
            "attention_bias": False,
            "attn_output_gate": True,
            "dtype": "float32",
            "eos_token_id": vocabulary.id("<|im_end|>"),
            "full_attention_interval": 2,
            "head_dim": 32,
            "hidden_act": "silu",
            "layer_types": ["linear_attention", "full_attention"],
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_value_head_dim": 8,
            "mamba_ssm_dtype": "float32",
            "model_type": "qwen3_5_text",
            "rope_parameters": {
                "mrope_interleaved": True,
                "mrope_section": [2, 1, 1],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10000000,
                "rope_type": "default",
            },
            "tie_word_embeddings": True,
        },
        "tie_word_embeddings": True,
        "transformers_version": "5.3.0",
        "vision_config": _qwen3_vision("qwen3_5") | {"deepstack_visual_indexes": []},
    }
