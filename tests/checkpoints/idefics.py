"""The families that split a page into tiles, ColIdefics3 and ColModernVBert."""

from tokenizers import normalizers, pre_tokenizers, processors

from . import templates
from .files import Files, Json
from .parts import HALVES, HIDDEN, LAYERS, VISION_HIDDEN, image_processor, siglip, text_sizes
from .vocabulary import Vocabulary, add_tokens, byte_level

_ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_IMAGE_TOKENS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]


def smolvlm_vocabulary() -> Vocabulary:
    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
    tokenizer = byte_level(first)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    add_tokens(tokenizer, first)
    add_tokens(tokenizer, ["<global-img>", *_ROWS, "<fake_token_around_image>", "<image>"])
    add_tokens(tokenizer, ["<|reserved_special_token_0|>", "<end_of_utterance>"])
    tokens = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    config: Json = {
        **tokens,
        "add_prefix_space": False,
        "additional_special_tokens": _IMAGE_TOKENS,
        "chat_template": templates.IDEFICS,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": 16384,
        "processor_class": "ColIdefics3Processor",
        "tokenizer_class": "GPT2Tokenizer",
        "truncation_side": "left",
        "vocab_size": 49152,
    }
    return Vocabulary(tokenizer, config, {**tokens, "additional_special_tokens": _IMAGE_TOKENS})


def modernvbert_vocabulary() -> Vocabulary:
    first = ["|||IP_ADDRESS|||", "<|padding|>"]
    tokenizer = byte_level(first)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    add_tokens(tokenizer, ["<|padding|>"], ["|||IP_ADDRESS|||"])
    add_tokens(tokenizer, ["<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    add_tokens(tokenizer, ["<global-img>", *_ROWS])
    add_tokens(tokenizer, ["<fake_token_around_image>", "<end_of_utterance>", "<image>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    tokens = {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    config: Json = {
        **tokens,
        "additional_special_tokens": _IMAGE_TOKENS,
        "chat_template": templates.IDEFICS,
        "clean_up_tokenization_spaces": True,
        "legacy": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 8192,
        "processor_class": "ColModernVBertProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return Vocabulary(tokenizer, config, {**tokens, "additional_special_tokens": _IMAGE_TOKENS})


def smolvlm_config(vocabulary: Vocabulary) -> Json:
    return {
        "image_token_id": vocabulary.id("<image>"),
        "model_type": "idefics3",
        "scale_factor": 4,
        "text_config": {
            **text_sizes(vocabulary),
            "_name_or_path": "None",
            "architectures": ["VLlama3ForCausalLM"],
            "bos_token_id": vocabulary.id("<|im_start|>"),
            "eos_token_id": vocabulary.id("<|im_end|>"),
            "head_dim": 16,
            "hidden_act": "silu",
            "is_llama_config": True,
            "model_type": "llama",
            "pad_token_id": vocabulary.id("<|im_end|>"),
            "pixel_shuffle_factor": 4,
            "rms_norm_eps": 1e-05,
            "rope_interleaved": False,
            "rope_theta": 100000,
            "use_resampler": False,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.46.0",
        "use_cache": False,
        "vision_config": {
            "hidden_size": VISION_HIDDEN,
            "image_size": 64,
            "intermediate_size": 48,
            "max_image_size": {"longest_edge": 64},
            "model_type": "idefics3",
            "num_attention_heads": 2,
            "num_hidden_layers": LAYERS,
            "patch_size": 8,
            "size": {"longest_edge": 256},
            "tie_word_embeddings": False,
            "use_base_siglip": False,
        },
        "vocab_size": vocabulary.size,
    }


def modernvbert_config(vocabulary: Vocabulary) -> Json:
    cls, sep = vocabulary.id("[CLS]"), vocabulary.id("[SEP]")
    return {
        "dtype": "float32",
        "image_token_id": vocabulary.id("<image>"),
        "model_type": "modernvbert",
        "pixel_shuffle_factor": 4,
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": cls,
            "cls_token_id": cls,
            "eos_token_id": sep,
            "global_attn_every_n_layers": 2,
            "global_rope_theta": 160000.0,
            "hidden_activation": "gelu",
            "hidden_size": HIDDEN,
            "intermediate_size": 96,
            "local_attention": 16,
            "local_rope_theta": 160000.0,
            "max_position_embeddings": 7999,
            "mlp_bias": False,
            "model_type": "modernbert",
            "norm_bias": False,
            "num_attention_heads": 4,
            "num_hidden_layers": LAYERS,
            "pad_token_id": vocabulary.id("[PAD]"),
            "sep_token_id": sep,
            "vocab_size": vocabulary.size,
        },
        "tie_word_embeddings": False,
        "transformers_version": "5.3.0",
        # A tile's tokens must be a multiple of `patch_size`, as 64 is of 16 in the real model.
        "vision_config": siglip(32, patch_size=4),
    }


def idefics_files(processor: str, tile: int) -> Files:
    """Pages are split into at most 4 x 4 tiles, 2 x 2 tokens each."""
    return {
        "chat_template.json": {"chat_template": templates.IDEFICS},
        "preprocessor_config.json": image_processor(
            "Idefics3ImageProcessor",
            processor,
            do_convert_rgb=True,
            do_image_splitting=True,
            do_pad=True,
            image_mean=HALVES,
            image_std=HALVES,
            max_image_size={"longest_edge": tile},
            resample=1,
            size={"longest_edge": 4 * tile},
        ),
        "processor_config.json": {"image_seq_len": 4, "processor_class": processor},
    }
