"""Export a training checkpoint as one that `pagevec serve --model DIRECTORY` loads.

    python -m training.export RUN DIRECTORY

The heads of the training are left out, the grey patch embedding is turned into one for colour,
and weights become bfloat16.
"""

import argparse
from pathlib import Path

import torch

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


if __name__ == "__main__":
    main()
