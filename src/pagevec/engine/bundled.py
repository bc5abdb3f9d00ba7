"""The model that ships with the package: ColQwen2.5's architecture, small, with its own tokenizer.

It is made deterministically (seeded) in the file layout of any checkpoint and then loaded by the
same code path. Its weights are untrained: vectors have the right form and no meaning.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pagevec.engine.torchvision_fix import import_torchvision

NAME = "bundled"
REVISION = "untrained-1"
NOTICE = "untrained: vectors have the right form and no meaning"

_SEED = 20_26
# The visual tokens of tsystems/colqwen2.5-3b-multilingual-v1.0 (its preprocessor_config.json).
_MAX_VISUAL_TOKENS = 768
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


def bundled_checkpoint(cache_dir: Path) -> Path:
    """Return the directory of the bundled checkpoint below `cache_dir`, making it if needed."""
    directory = cache_dir.expanduser() / f"{NAME}-{REVISION}"
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        _make_atomically(directory)
    return directory


def make_checkpoint(directory: Path) -> None:
    """Write the whole checkpoint (configuration, weights, tokenizer, processor) to `directory`."""
    import_torchvision()
    import torch
    from colpali_engine.models import ColQwen2_5

    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = ColQwen2_5(_config(tokenizer))
        # The padding token augments queries too; its embedding starts as zeros, which have no
        # direction to normalise.
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    model.to(torch.bfloat16).save_pretrained(directory)
    _processor(tokenizer).save_pretrained(directory)
    notice = {"notice": NOTICE, "revision": REVISION}
    (directory / "pagevec.json").write_text(json.dumps(notice), encoding="utf-8")


def _make_atomically(directory: Path) -> None:
    # Two processes may start at once: the first rename wins, the other copy is dropped.
    draft = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".making-"))
    try:
        make_checkpoint(draft)
        os.rename(draft, directory)  # noqa: PTH104 - Path.rename would do the same
    except OSError:
        if not directory.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _tokenizer() -> Any:
    """Byte-level tokens, one for each byte of UTF-8: every text is covered, none is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = Qwen2Tokenizer(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
        additional_special_tokens=list(_CONTROL_TOKENS),
    )
    return tokenizer


def _processor(tokenizer: Any) -> Any:
    from colpali_engine.models import ColQwen2_5_Processor
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    cell = 28 * 28  # pixels of one visual token
    size = {"shortest_edge": 4 * cell, "longest_edge": _MAX_VISUAL_TOKENS * cell}
    return ColQwen2_5_Processor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
    )


def _config(tokenizer: Any) -> Any:
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _CONTROL_TOKENS}
    hidden = 192
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            # 32,000 characters of four bytes each, and the augmentation tokens
            "max_position_embeddings": 131_072,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [4, 10, 10],
            },
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "bos_token_id": None,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_heads": 4,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [3],
            "window_size": 112,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
