"""Write a checkpoint of the 3B architecture with random weights: nothing is downloaded.

Throughput does not depend on the values of the weights. The configuration is the public one of
Qwen/Qwen2.5-VL-3B-Instruct, on which tsystems/colqwen2.5-3b-multilingual-v1.0 is built; tokenizer
and processor are the bundled model's, with the 768 visual tokens of that checkpoint.
"""

from pathlib import Path
from typing import Any

import click
import torch

from pagevec.engine.models.compat import import_torchvision
from pagevec.engine.models.registry import bundled_checkpoint

_HIDDEN = 2048
_VISUAL_TOKENS = 768
_SEED = 3


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def main(directory: Path) -> None:
    """Write a checkpoint of 3.8 billion parameters (7.5 GB) to DIRECTORY, for `--model`."""
    processor = make_processor()
    from colpali_engine.models import ColQwen2_5

    torch.manual_seed(_SEED)
    torch.set_default_dtype(torch.bfloat16)
    model = ColQwen2_5(make_config(processor.tokenizer))
    # Queries are augmented with the padding token, and a row of zeros has no direction.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.02)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


def make_processor() -> Any:
    """Return the bundled model's processor with the visual tokens of the 3B checkpoint."""
    import_torchvision()
    from colpali_engine.models import ColQwen2_5_Processor

    return ColQwen2_5_Processor.from_pretrained(
        bundled_checkpoint(), max_num_visual_tokens=_VISUAL_TOKENS
    )


def make_config(tokenizer: Any) -> Any:
    """Return the configuration of the 3B model with the token ids of `tokenizer`."""
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

    ids = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151_936,
            "hidden_size": _HIDDEN,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128_000,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [16, 24, 24],
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": _HIDDEN,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


if __name__ == "__main__":
    main()
