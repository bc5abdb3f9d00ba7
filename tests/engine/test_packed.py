"""The packed backend gives colpali-engine's vectors, for pages of any size."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import FAMILIES, build_checkpoint, model_class, processor_class
from conftest import make_settings, png
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend
from pagevec.engine.models.registry import find_family
from pagevec.images import read_image
from pagevec.types import MultiVector

PACKED = [name for name in FAMILIES if find_family(name).packed]
SIZES = {"A4": (1240, 1754), "stripe": (256, 3), "column": (9, 1500), "dot": (1, 1)}
TEXTS = ["hello", "", "   \n", "Öffnungszeiten, 値段, سعر, 🚢", "a passage " * 60]


@pytest.fixture(scope="module", params=PACKED)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: str = request.param
    return build_checkpoint(family, tmp_path_factory.mktemp("checkpoints") / family)


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> Backend[Any]:
    return load(make_settings(model=str(checkpoint), offline=True))


@pytest.fixture(scope="module")
def original(checkpoint: Path) -> Iterator[tuple[Any, Any]]:
    model = model_class(checkpoint.name).from_pretrained(checkpoint, dtype=torch.float32).eval()
    yield model, processor_class(checkpoint.name).from_pretrained(checkpoint)


def theirs(original: tuple[Any, Any], batch: Any) -> list[MultiVector]:
    """Return colpali-engine's vectors for `batch`, without its padding rows."""
    with torch.inference_mode():
        padded = original[0](**batch)
    masks = batch["attention_mask"].bool()
    return [rows[mask].numpy() for rows, mask in zip(padded, masks, strict=True)]


def pages_of(original: tuple[Any, Any], *files: bytes) -> list[MultiVector]:
    images = [Image.open(BytesIO(file)).convert("RGB") for file in files]
    return theirs(original, original[1].process_images(images))


def embedded(ours: Backend[Any], *files: bytes) -> list[MultiVector]:
    return ours.forward([ours.prepare_page(read_image(file)) for file in files])


def assert_equal(some: list[MultiVector], others: list[MultiVector]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-4
        clear = np.abs(other) > 1e-3
        assert (np.sign(one)[clear] == np.sign(other)[clear]).all()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_page_of_any_size(
    size: tuple[int, int], ours: Backend[Any], original: tuple[Any, Any]
) -> None:
    """A page, a thin one and a dot have the vectors of the family's own model."""
    file = png(*size)
    assert_equal(embedded(ours, file), pages_of(original, file))


def test_mixed_pages(ours: Backend[Any], original: tuple[Any, Any]) -> None:
    """Pages of different grids in one pack equal colpali-engine's batch, and each one alone."""
    files = [png(*size, seed=seed) for seed, size in enumerate(SIZES.values())]
    packed = embedded(ours, *files)
    assert_equal(packed, pages_of(original, *files))
    assert_equal(packed, [one for file in files for one in embedded(ours, file)])


def test_mixed_texts(ours: Backend[Any], original: tuple[Any, Any]) -> None:
    """Texts of different lengths in one pack equal colpali-engine's padded batch of them."""
    packed = ours.forward(list(ours.prepare_texts(TEXTS)))
    assert_equal(packed, theirs(original, original[1].process_queries(TEXTS)))


def test_half_precision(ours: Backend[Any], checkpoint: Path) -> None:
    """In bfloat16 a page's vectors stay close to those of float32."""
    half = load(make_settings(model=str(checkpoint), offline=True, dtype="bfloat16"))
    [exact], [rounded] = embedded(ours, png(300, 200)), embedded(half, png(300, 200))
    assert (exact * rounded).sum(axis=1).min() > 0.99
