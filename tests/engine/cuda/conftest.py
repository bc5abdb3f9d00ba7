"""Checkpoints of all families, colpali-engine's own vectors in float32, and a device for ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import build_checkpoint, model_class, processor_class
from conftest import make_settings, png
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend
from pagevec.images import read_image
from pagevec.types import MultiVector

SIZES = [(200, 300), (256, 3), (150, 90)]
PAGES = [png(*size, seed=seed) for seed, size in enumerate(SIZES)]
TEXTS = ["hello", "Öffnungszeiten, 値段, سعر, 🚢", "a passage " * 60]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, and what colpali-engine makes of each page and text alone, in float32."""

    folder: Path
    pages: list[MultiVector]
    texts: list[MultiVector]

    @property
    def family(self) -> str:
        return self.folder.name


class Checkpoints:
    """The checkpoints of all families, each built when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.of = cache(self._build)
        self._folder = folder

    def _build(self, family: str) -> Checkpoint:
        folder = build_checkpoint(family, self._folder / family)
        model = model_class(family).from_pretrained(folder, dtype=torch.float32).eval()
        processor = processor_class(family).from_pretrained(folder)
        images = [Image.open(BytesIO(page)).convert("RGB") for page in PAGES]
        return Checkpoint(
            folder,
            [_embed(model, processor.process_images([one])) for one in images],
            [_embed(model, processor.process_queries([one])) for one in TEXTS],
        )


def _embed(model: Any, batch: Any) -> MultiVector:
    with torch.inference_mode():
        [vectors] = model(**batch)
    return np.asarray(vectors[batch["attention_mask"][0].bool()])


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


def load_on_cuda(checkpoint: Checkpoint, **settings: Any) -> Backend[Any]:
    """Load a checkpoint as the service does, inside the block of an emulated device."""
    folder = str(checkpoint.folder)
    return load(make_settings(**{"model": folder, "device": "cuda", "offline": True, **settings}))


def prepare_pages(backend: Backend[Any]) -> list[Any]:
    return [backend.prepare_page(read_image(page)) for page in PAGES]


def mean_cosine(some: Sequence[MultiVector], others: Sequence[MultiVector]) -> float:
    """Return the mean cosine of unit vectors, after checking that there are as many."""
    assert [one.shape for one in some] == [one.shape for one in others]
    return float((np.concatenate(some) * np.concatenate(others)).sum(axis=1).mean())
