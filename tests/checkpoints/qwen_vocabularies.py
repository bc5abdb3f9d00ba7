"""The vocabularies of the five Qwen families."""

from tokenizers import Regex, normalizers, pre_tokenizers, processors

from . import templates
from .files import Json
from .vocabulary import Vocabulary, add_tokens, byte_level

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_VL_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_QWEN2_5_PLAIN = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
_QWEN3_PLAIN = (*_QWEN2_5_PLAIN, "<tool_response>", "</tool_response>", "<think>", "</think>")
_OMNI_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)
_OMNI_ROLES = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def _qwen(
    special: tuple[str, ...],
    plain: tuple[str, ...],
    template: str = templates.QWEN,
    roles: dict[str, str] | None = None,
) -> Vocabulary:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    add_tokens(tokenizer, special, plain)
    config: Json = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "additional_special_tokens": list(special[1:]),
        "bos_token": None,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    if roles:
        config |= {**roles, "extra_special_tokens": roles}
    special_map: Json = {
        "additional_special_tokens": list(special[1:]),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    return Vocabulary(tokenizer, config, special_map)


def qwen2_vocabulary() -> Vocabulary:
    return _qwen(_VL_SPECIAL, ())


def qwen2_5_vocabulary() -> Vocabulary:
    return _qwen(_VL_SPECIAL, _QWEN2_5_PLAIN)


def omni_vocabulary() -> Vocabulary:
    return _qwen(_OMNI_SPECIAL, _QWEN2_5_PLAIN, templates.QWEN_OMNI, _OMNI_ROLES)


def qwen3_vocabulary() -> Vocabulary:
    return _qwen(_VL_SPECIAL, _QWEN3_PLAIN)


def qwen3_5_vocabulary() -> Vocabulary:
    """The files as transformers 5 saves them: no list of the added tokens, no map."""
    old = qwen3_vocabulary()
    dropped = ("add_bos_token", "additional_special_tokens", "chat_template")
    config: Json = {
        **{key: value for key, value in old.config.items() if key not in dropped},
        "backend": "tokenizers",
        "extra_special_tokens": list(_VL_SPECIAL[1:]),
        "is_local": False,
        "processor_class": "ColQwen3_5Processor",
        "tokenizer_class": "Qwen3_5Tokenizer",
    }
    return Vocabulary(old.tokenizer, config, None)
