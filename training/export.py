"""Export a training checkpoint as one that `pagevec serve --model DIRECTORY` loads.

    python -m training.export RUN DIRECTORY

The heads of the training are left out, the grey patch embedding is turned into one for colour,
and weights become bfloat16. `write_encoder_files` adds what sentence-transformers reads.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.architecture import make_config, make_processor
from training.model import Reader


def main() -> None:
    """Export the last checkpoint of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    reader = Reader()
    state = torch.load(arguments.run / "checkpoint.pt", weights_only=True)
    reader.load_state_dict(state["reader"])
    write_checkpoint(reader, arguments.directory)
    print(f"step {state['step']} -> {arguments.directory}")


def write_checkpoint(reader: Reader, directory: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the model, its tokenizer and its processor to `directory`."""
    from colpali_engine.models import ColQwen2_5

    model = ColQwen2_5(make_config(reader.tokenizer))
    trained = reader.model.state_dict()
    grey = reader.model.visual.patch_embed
    trained.pop("visual.patch_embed.proj.weight")
    trained["visual.patch_embed.proj.weight"] = grey.as_convolution()
    model.load_state_dict(trained)
    model.to(dtype).save_pretrained(directory)
    make_processor(reader.tokenizer).save_pretrained(directory)
    write_encoder_files(directory)


_LIBRARY = "sentence_transformers"
_MODULES = (
    ("", f"{_LIBRARY}.base.modules.transformer.Transformer"),
    ("1_Dense", f"{_LIBRARY}.base.modules.dense.Dense"),
    ("2_Normalize", f"{_LIBRARY}.base.modules.normalize.Normalize"),
    ("3_MultiVectorMask", f"{_LIBRARY}.multi_vector_encoder.modules.MultiVectorMask"),
)
_OF_TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
_HIDDEN = {"method": "forward", "method_output_name": "last_hidden_state"}


def write_encoder_files(directory: Path) -> None:
    """Add to a checkpoint what makes it a `MultiVectorEncoder` of sentence-transformers.

    Without a list of its modules that library takes the backbone and appends a projection with
    random weights. The chat template spells the prompts of colpali-engine's processor.
    """
    from colpali_engine.models import ColQwen2_5_Processor

    processor = ColQwen2_5_Processor.from_pretrained(directory)
    page, cell = processor.visual_prompt_prefix, "{{ part['text'] }}"
    query = cell + processor.query_augmentation_token * 10
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{page}"
        f"{{% elif part['type'] == 'text' %}}{query}"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    for name in ("processor_config.json", "tokenizer_config.json"):
        _change_json(directory / name, processor_class="Qwen2_5_VLProcessor")
    weights = load_file(directory / "model.safetensors")
    projection = {part: weights[f"custom_text_proj.{part}"] for part in ("weight", "bias")}
    out_features, in_features = projection["weight"].shape
    for folder, _ in _MODULES:
        (directory / folder).mkdir(exist_ok=True)
    save_file(
        {f"linear.{part}": tensor for part, tensor in projection.items()},
        directory / "1_Dense" / "model.safetensors",
    )
    dense = {
        "in_features": in_features,
        "out_features": out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
        **_OF_TOKENS,
    }
    _write_json(directory / "1_Dense" / "config.json", dense)
    _write_json(directory / "2_Normalize" / "config.json", _OF_TOKENS)
    _write_json(directory / "3_MultiVectorMask" / "config.json", {"skiplist_words": []})
    modules = [
        {"idx": number, "name": str(number), "path": folder, "type": kind}
        for number, (folder, kind) in enumerate(_MODULES)
    ]
    _write_json(directory / "modules.json", modules)
    kinds = {"text": _HIDDEN, "image": _HIDDEN, "message": {**_HIDDEN, "format": "structured"}}
    backbone = {
        "transformer_task": "feature-extraction",
        "modality_config": kinds,
        "module_output_name": "token_embeddings",
    }
    _write_json(directory / "sentence_bert_config.json", backbone)
    encoder = {
        "model_type": "MultiVectorEncoder",
        "prompts": {"query": "", "document": ""},
        "similarity_fn_name": "maxsim",
    }
    _write_json(directory / "config_sentence_transformers.json", encoder)


def _change_json(file: Path, **changes: Any) -> None:
    _write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **changes})


def _write_json(file: Path, content: Any) -> None:
    file.write_text(f"{json.dumps(content, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
