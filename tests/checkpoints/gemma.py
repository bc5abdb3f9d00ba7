"""The families on Gemma, ColPali and ColGemma3: vocabularies, configs, processor files."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors

from . import templates
from .files import Files, Json
from .parts import HALVES, HIDDEN, LAYERS, image_processor, siglip, text_sizes
from .vocabulary import Vocabulary, add_tokens, bpe

_FIRST = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
_TOKENS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
_IMAGE_ROLES = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}


def _tokenizer(first: Iterable[str]) -> Tokenizer:
    """BPE over characters with byte fallback, a space being `▁`, as SentencePiece has it."""
    symbols = [f"<0x{byte:02X}>" for byte in range(256)]
    symbols += ["\n", "▁", *map(chr, range(33, 127))]
    unknown: Json = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    tokenizer = bpe(first, symbols, space="▁", breaks="\n\n", **unknown)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


def paligemma_vocabulary() -> Vocabulary:
    locations = [f"<loc{i:0>4}>" for i in range(1024)] + [f"<seg{i:0>3}>" for i in range(128)]
    tokenizer = _tokenizer([*_FIRST, *locations])
    add_tokens(tokenizer, _FIRST[:4], locations)
    add_tokens(tokenizer, ["<image>"])
    config: Json = {
        **_TOKENS,
        "add_bos_token": True,
        "add_eos_token": False,
        "additional_special_tokens": ["<image>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "processor_class": "ColPaliProcessor",
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "use_default_system_prompt": False,
    }
    return Vocabulary(tokenizer, config, {**_TOKENS, "additional_special_tokens": ["<image>"]})


def gemma3_vocabulary() -> Vocabulary:
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = _tokenizer([*_FIRST, "[multimodal]", "<unused0>", *turns])
    add_tokens(tokenizer, [*_FIRST, "[multimodal]", "<unused0>", *turns])
    add_tokens(tokenizer, _IMAGE_ROLES.values())
    config: Json = {
        **_TOKENS,
        **_IMAGE_ROLES,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": _IMAGE_ROLES,
        "model_max_length": 1000000000000000019884624838656,
        "padding_side": "left",
        "processor_class": "ColGemmaProcessor3",
        "sp_model_kwargs": None,
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "use_default_system_prompt": False,
    }
    return Vocabulary(tokenizer, config, {**_TOKENS, **_IMAGE_ROLES})


def paligemma_config(vocabulary: Vocabulary) -> Json:
    return {
        "_name_or_path": "vidore/colpaligemma-3b-pt-448-base",
        "bos_token_id": 2,
        "eos_token_id": 1,
        "hidden_size": HIDDEN,
        "ignore_index": -100,
        "image_token_index": vocabulary.id("<image>"),
        "model_type": "paligemma",
        "pad_token_id": 0,
        "projection_dim": HIDDEN,
        "text_config": {
            "head_dim": 16,
            "hidden_size": HIDDEN,
            "intermediate_size": 96,
            "model_type": "gemma",
            "num_attention_heads": 4,
            "num_hidden_layers": LAYERS,
            "num_image_tokens": 16,
            "num_key_value_heads": 1,
            "torch_dtype": "float32",
            "vocab_size": vocabulary.size,
        },
        "torch_dtype": "float32",
        "transformers_version": "4.44.0",
        "vision_config": {
            **siglip(56),
            "num_image_tokens": 16,
            "projection_dim": HIDDEN,
            "projector_hidden_act": "gelu_fast",
        },
    }


def gemma3_config(vocabulary: Vocabulary) -> Json:
    return {
        "boi_token_index": vocabulary.id("<start_of_image>"),
        "dtype": "float32",
        "eoi_token_index": vocabulary.id("<end_of_image>"),
        "eos_token_id": [1, vocabulary.id("<end_of_turn>")],
        "image_token_index": vocabulary.id("<image_soft_token>"),
        "initializer_range": 0.02,
        "mm_tokens_per_image": 16,
        "model_type": "gemma3",
        "text_config": {
            **text_sizes(vocabulary),
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "head_dim": 16,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": ["sliding_attention", "full_attention"],
            "model_type": "gemma3_text",
            "query_pre_attn_scalar": 16,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "rope_theta": 1000000.0,
            "sliding_window": 16,
        },
        "transformers_version": "4.56.1",
        "vision_config": siglip(112),
    }


PALIGEMMA_FILES: Files = {
    "preprocessor_config.json": image_processor(
        "SiglipImageProcessor",
        "ColPaliProcessor",
        do_convert_rgb=None,
        image_mean=HALVES,
        image_seq_length=16,
        image_std=HALVES,
        resample=3,
        size={"height": 56, "width": 56},
    )
}

GEMMA3_FILES: Files = {
    "chat_template.jinja": templates.GEMMA_3,
    "preprocessor_config.json": image_processor(
        "Gemma3ImageProcessor",
        "ColGemmaProcessor3",
        do_convert_rgb=None,
        do_pan_and_scan=None,
        image_mean=HALVES,
        image_seq_length=16,
        image_std=HALVES,
        pan_and_scan_max_num_crops=None,
        pan_and_scan_min_crop_size=None,
        pan_and_scan_min_ratio_to_activate=None,
        resample=2,
        size={"height": 112, "width": 112},
    ),
    "processor_config.json": {
        "image_seq_length": 16,
        "processor_class": "ColGemmaProcessor3",
    },
}
