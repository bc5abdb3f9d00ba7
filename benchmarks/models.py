"""Which model is measured: the bundled one, a checkpoint, or the full size with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.full_size import full_size_checkpoint
from pagevec.engine.models.bundled import REVISION, bundled_checkpoint

_FOLDER = click.Path(file_okay=False, resolve_path=True, path_type=Path)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose a model and a device."""
    for option in (
        click.option("--model", type=_FOLDER, help="A checkpoint of any family; default: bundled."),
        click.option(
            "--full-size",
            type=_FOLDER,
            help="The 3B architecture with random weights, kept in this folder (7.5 GB).",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps."),
    ):
        command = option(command)
    return command


def chosen_model(model: Path | None, full_size: Path | None) -> Path:
    """Return the folder of the checkpoint that the options name."""
    if full_size is not None:
        return full_size_checkpoint(full_size, bundled_checkpoint())
    return model or bundled_checkpoint()


def name_of(checkpoint: Path) -> str:
    """Return what the figures call the model in `checkpoint`."""
    bundled = checkpoint == bundled_checkpoint()
    return f"bundled {REVISION}" if bundled else checkpoint.name
