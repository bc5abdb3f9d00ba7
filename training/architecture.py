"""Architecture of the bundled model: a small ColQwen2.5, its tokenizer and its processor."""

from typing import Any

CELL = 28  # pixels: the side of a visual token
MAX_VISUAL_TOKENS = 1536  # A4 at 108 dots an inch: 10-point print is 15 pixels high
WINDOW = 12 * CELL  # pixels: wider than any word in print of usual size

_CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The prompt that colpali-engine puts around a page: one token each, so that it spells no word.
_PROMPT_TOKENS = ("user\n", "Describe the image.")


def make_tokenizer() -> Any:
    """Return a tokenizer of UTF-8 bytes that drops case and accents and joins white space."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: n for n, piece in enumerate(alphabet)}, merges=[]))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in _CONTROL_TOKENS])
    core.add_tokens([AddedToken(t, normalized=False) for t in _PROMPT_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(_CONTROL_TOKENS),
    )


def make_processor(tokenizer: Any) -> Any:
    """Return the processor that prepares pages and texts."""
    from colpali_engine.models import ColQwen2_5_Processor
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": 4 * CELL**2, "longest_edge": MAX_VISUAL_TOKENS * CELL**2}
    return ColQwen2_5_Processor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
    )


def make_config(tokenizer: Any) -> Any:
    """Return the configuration: the vision tower reads, the language model joins windows to words.

    The rotary sections alternate, so that rows and columns both have short wavelengths; by default
    neighbouring columns of a page would be almost the same position.
    """
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _CONTROL_TOKENS}
    hidden = 192
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            # 32,000 characters of four bytes each, and the augmentation tokens
            "max_position_embeddings": 131_072,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 30.0,
                "mrope_section": [1, 2, 2, 1, 2, 2, 1, 2, 2, 1, 2, 2, 0, 2, 2],
            },
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "bos_token_id": None,
        },
        vision_config={
            "depth": 5,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_heads": 4,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [],
            "window_size": WINDOW,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
