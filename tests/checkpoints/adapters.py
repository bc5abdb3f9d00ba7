"""A LoRA adapter of a checkpoint, with random weights."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .families import TABLE, model_class
from .files import write_files

_PREFIX = "base_model.model."


def build_adapter(family: str, base: Path, directory: Path, *, legacy_keys: bool = False) -> Path:
    """Write a LoRA adapter of a checkpoint, as colpali-engine's trainer saves one.

    Args:
        family: One of `FAMILIES`.
        base: What `build_checkpoint` wrote; `adapter_config.json` points to it.
        directory: Where the files go; created when missing.
        legacy_keys: Name the tensors as adapters trained before transformers moved the language
            model name them, such as the published ones. Only for `LEGACY_ADAPTERS`.

    Returns:
        The directory.
    """
    spec = TABLE[family]
    assert spec.legacy_adapters or not legacy_keys, f"{family} has no such adapters"
    cls = model_class(family)
    import peft  # after colpali-engine, whose import makes sure of torchvision's

    model = cls(cls.config_class.from_pretrained(base))
    model.name_or_path = str(base)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        init_lora_weights="gaussian",
        bias="none",
        task_type="FEATURE_EXTRACTION",
        target_modules=spec.target_modules,
        base_model_name_or_path=str(base),
    )
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
    wrapped.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    write_files(directory, {**spec.vocabulary.files, **spec.files})
    if legacy_keys:
        weights = directory / "adapter_model.safetensors"
        tensors = {
            _PREFIX + spec.published_name(name.removeprefix(_PREFIX)): tensor
            for name, tensor in load_file(weights).items()
        }
        save_file(tensors, weights, metadata={"format": "pt"})
    return directory
