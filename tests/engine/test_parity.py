"""The same vectors as colpali-engine's own processor and model."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import EXAMPLES, png
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.registry import bundled_checkpoint
from pagevec.images import EncodedImage, read_image
from pagevec.ingest.boundary import open_document
from pagevec.types import MultiVector

TOLERANCE = 1e-4
SIZES = {"A4": (1240, 1754), "A0": (4967, 7022), "256 x 3": (256, 3), "1 x 1": (1, 1)}
TEXTS = [
    "which route carried the most passengers?",
    "",
    "   \n",
    "Öffnungszeiten, 値段, سعر, 🚢",
    "data:image/png;base64,AAAA is a text here",
    "a passage " * 60,
]


@pytest.fixture(scope="module")
def original(embedder: LocalEmbedder) -> tuple[Any, Any]:
    from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor

    directory = bundled_checkpoint()
    model = ColQwen2_5.from_pretrained(directory, dtype=torch.float32).eval()
    return model, ColQwen2_5_Processor.from_pretrained(directory)


def reference(original: tuple[Any, Any], batch: Any) -> list[MultiVector]:
    """Return colpali-engine's vectors for `batch`, without its padding rows."""
    model, _ = original
    with torch.inference_mode():
        padded = model(**batch)
    masks = batch["attention_mask"].bool()
    return [rows[mask].numpy() for rows, mask in zip(padded, masks, strict=True)]


def assert_equal(ours: list[MultiVector], theirs: list[MultiVector]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= TOLERANCE
        clear = np.abs(other) > 1e-3
        assert (np.sign(one)[clear] == np.sign(other)[clear]).all()


def images(*files: bytes) -> list[EncodedImage]:
    return [read_image(file) for file in files]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_image_of_size(
    size: tuple[int, int], embedder: LocalEmbedder, original: tuple[Any, Any]
) -> None:
    """A page of any size has colpali-engine's vectors: A4, 35 megapixels, a stripe, a dot."""
    file = png(*size)
    ours = embedder.embed_images(images(file)).result().vectors
    pages = [Image.open(BytesIO(file)).convert("RGB")]
    assert_equal(ours, reference(original, original[1].process_images(pages)))


def test_mixed_pages_in_one_request(embedder: LocalEmbedder, original: tuple[Any, Any]) -> None:
    """Pages of different sizes in one request equal colpali-engine's padded batch of them."""
    with open_document(EXAMPLES / "annual-report.pdf") as document:
        rendered = [document.make(number).content for number in (1, 2, 3)]
    files = [rendered[0], png(300, 200), png(256, 3), rendered[2], png(1, 1)]
    assert all(isinstance(file, bytes) for file in files)
    ours = embedder.embed_images([read_image(bytes(file)) for file in files]).result().vectors  # type: ignore[arg-type]
    pages = [Image.open(BytesIO(bytes(file))).convert("RGB") for file in files]  # type: ignore[arg-type]
    assert_equal(ours, reference(original, original[1].process_images(pages)))


def test_texts(embedder: LocalEmbedder, original: tuple[Any, Any]) -> None:
    """Texts equal process_queries, augmentation tokens included, blank ones too."""
    ours = embedder.embed_texts(TEXTS).result().vectors
    assert_equal(ours, reference(original, original[1].process_queries(TEXTS)))


def test_a_stripe_that_colpali_engine_refuses(embedder: LocalEmbedder) -> None:
    """256 x 1, which morphik-core sends and the resizing refuses, has finite unit vectors."""
    [vectors] = embedder.embed_images(images(png(256, 1))).result().vectors
    assert len(vectors) > 0
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
