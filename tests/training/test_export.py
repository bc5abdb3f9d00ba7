"""What was trained is what is served: the exported checkpoint gives the training's own vectors."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training.architecture import CELL
from training.export import write_checkpoint
from training.model import AUGMENTATION, Reader

from conftest import make_settings
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend
from pagevec.images import read_image

TOLERANCE = 1e-4
TEXTS = ["Fähre", "two  words AB-12/3", "naïve ÉTÉ straße 4,711.50"]


@pytest.fixture(scope="module")
def reader() -> Reader:
    torch.manual_seed(0)
    return Reader().eval()


@pytest.fixture(scope="module")
def served(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Backend[Any]:
    directory = tmp_path_factory.mktemp("exported")
    write_checkpoint(reader, directory, torch.float32)
    return load(make_settings(model=str(directory), device="cpu"))


@pytest.mark.parametrize("cells", [(3, 12), (33, 22)], ids=["a crop", "a page of six windows"])
def test_pages(cells: tuple[int, int], reader: Reader, served: Backend[Any]) -> None:
    """A grey page has the same vectors: the patch embedding, the windows and positions agree."""
    coarse = np.random.default_rng(0).integers(0, 256, cells, dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((CELL, CELL), np.uint8))
    pixels[:: CELL // 4] //= 2
    file = BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "PNG")

    [ours] = served.forward([served.prepare_page(read_image(file.getvalue()))])
    with torch.inference_mode():
        trained = reader.pages(torch.from_numpy(pixels)[None])[0][0].numpy()
    start = len(reader.before)
    in_order = np.concatenate([trained[-start:], trained[:-start]])
    assert np.abs(ours - in_order).max() < TOLERANCE


def test_texts(reader: Reader, served: Backend[Any]) -> None:
    """Queries as colpali-engine prepares them, augmentation tokens included, agree as well."""
    ours = served.forward(served.prepare_texts(TEXTS))
    with torch.inference_mode():
        tokens, mask, ends = reader.texts(TEXTS)
    for one, row, kept, places in zip(ours, tokens, mask, ends, strict=True):
        assert np.abs(one - row[kept].numpy()).max() < TOLERANCE
        assert len(one) == places[-1] + AUGMENTATION


def test_queries_are_read_without_case_and_accents(served: Backend[Any]) -> None:
    """What differs in case, accents or white space only is the same query, letter for letter."""
    plain, marked = served.prepare_texts(["cafe noir", "CAFÉ \n Noir"])
    assert plain.sequence["input_ids"].tolist() == marked.sequence["input_ids"].tolist()
