"""The model under test: which checkpoint, and the engine that runs it in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.registry import BUNDLED_REVISION, bundled_checkpoint
from pagevec.settings import Settings
from pagevec.types import MultiVector

_A_DAY = 86_400.0
MODEL = click.Option(
    ["--model", "checkpoint"],
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=bundled_checkpoint,
    help="Folder of a checkpoint of any family (default: the bundled model).",
)
DEVICE = click.Option(
    ["--device"], default="auto", show_default=True, help="auto, cpu, mps, cuda or cuda:N."
)


@dataclass(frozen=True)
class Agreement:
    """How close the vectors of two engines are, over all inputs.

    Attributes:
        difference: largest difference of any component.
        cosine: smallest cosine of any vector.
        mean_cosine: mean cosine of all vectors.
        signs: share of components with equal signs.
    """

    difference: float
    cosine: float
    mean_cosine: float
    signs: float


def name_model(checkpoint: Path) -> str:
    """Return what the figures call the model in `checkpoint`."""
    bundled = checkpoint == bundled_checkpoint()
    return f"bundled {BUNDLED_REVISION}" if bundled else checkpoint.name


def make_settings(checkpoint: Path, device: str, **settings: Any) -> Settings:
    """Return settings that refuse no request for being slow, free of the caller's .env file."""
    allowed = {"max_queued_inputs": 1_000_000, "request_seconds": _A_DAY}
    return Settings(_env_file=None, model=str(checkpoint), device=device, **{**allowed, **settings})


@contextmanager
def run_engine(settings: Settings, backend: Backend[Any] | None = None) -> Iterator[LocalEmbedder]:
    """Run the engine until the end of the block, on `backend` or the one of `settings`."""
    engine = LocalEmbedder.of(settings, lambda: backend or load(settings))
    engine.wait_until_ready()
    try:
        yield engine
    finally:
        engine.close()


def compare_vectors(ours: list[MultiVector], theirs: list[MultiVector]) -> Agreement:
    """Compare multi-vectors, float32 (vectors, dim) each, row by row.

    Raises:
        ValueError: their shapes differ.
    """
    one, other = np.concatenate(ours), np.concatenate(theirs)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / lengths
    return Agreement(
        difference=float(np.abs(one - other).max()),
        cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        signs=float((np.sign(one) == np.sign(other)).mean()),
    )
