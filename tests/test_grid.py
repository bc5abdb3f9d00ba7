"""The patch grid, without a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import png
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.compat import import_torchvision
from pagevec.grid import PageResizing
from pagevec.images import read_image

import_torchvision()

from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize  # noqa: E402

COLQWEN = PageResizing(cell=28, min_pixels=4 * 784, max_pixels=768 * 784, first=4, max_ratio=200)


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_equals_the_processor(width: int, height: int) -> None:
    """The size is the one that transformers' own smart_resize gives, for every page."""
    width, height = COLQWEN.padded(width, height)
    high, wide = smart_resize(height, width, COLQWEN.cell, COLQWEN.min_pixels, COLQWEN.max_pixels)
    assert COLQWEN.resized(width, height) == (wide, high)


@pytest.mark.parametrize("size", [(1240, 1754), (300, 200), (1, 1), (256, 1), (3, 700)])
def test_equals_the_service(size: tuple[int, int], embedder: LocalEmbedder) -> None:
    """The grid that /info leads to has as many cells as the page has visual tokens."""
    resizing = embedder.info().resizing
    assert resizing is not None
    [page] = embedder.embed_images([read_image(png(*size))]).result().vectors
    [text] = embedder.embed_images([read_image(png(56, 56))]).result().vectors
    prompt = len(text) - resizing.grid(56, 56).cells
    assert resizing.grid(*size).cells == len(page) - prompt
    assert 0 < resizing.first < prompt
