"""A family's checkpoint, with random weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from .families import TABLE, model_class
from .files import write_files


def build_checkpoint(family: str, directory: Path) -> Path:
    """Write a family's tiny checkpoint, as its published checkpoints are laid out.

    Args:
        family: One of `FAMILIES`.
        directory: Where the files go; created when missing.

    Returns:
        The directory.
    """
    spec = TABLE[family]
    config = {"architectures": [spec.model], **spec.config(spec.vocabulary)}
    write_files(directory, {"config.json": config, **spec.vocabulary.files, **spec.files})
    cls = model_class(family)
    model = cls(cls.config_class.from_pretrained(directory))
    randomise(model)
    tensors = {
        spec.published_name(name): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name not in spec.unsaved
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Fill the parameters: matrices preserve a unit variance, norms stay near the identity."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            # A norm's scale starts at one or, in Gemma, at zero: the model knows.
            if name.endswith(("A_log", "dt_bias")):
                parameter.fill_(0.5)
            elif name.endswith("bias"):
                parameter.zero_()
            parameter.add_(torch.empty_like(parameter).normal_(std=0.1, generator=generator))
        elif "embed" in name and parameter.ndim == 2:
            parameter.normal_(generator=generator)
        else:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
