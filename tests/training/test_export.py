"""What was trained is what is served: the exported checkpoint gives the training's own vectors."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from training.architecture import CELL
from training.export import write_checkpoint
from training.model import AUGMENTATION, Reader

from conftest import make_settings
from pagevec.engine.backends.padded import runner_of
from pagevec.engine.models.loader import LoadedModel, load
from pagevec.images import read_image

TOLERANCE = 1e-4
TEXTS = ["Fähre", "two  words AB-12/3", "naïve ÉTÉ straße 4,711.50"]


@pytest.fixture(scope="module")
def reader() -> Reader:
    torch.manual_seed(0)
    return Reader().eval()


@pytest.fixture(scope="module")
def served(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = tmp_path_factory.mktemp("exported")
    write_checkpoint(reader, directory, torch.float32)
    return load(make_settings(model=str(directory), device="cpu"))


@pytest.mark.parametrize("cells", [(3, 12), (33, 22)], ids=["a crop", "a page of six windows"])
def test_pages(cells: tuple[int, int], reader: Reader, served: LoadedModel) -> None:
    """A grey page has the same vectors: the patch embedding, the windows and positions agree."""
    coarse = np.random.default_rng(0).integers(0, 256, cells, dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((CELL, CELL), np.uint8))
    pixels[:: CELL // 4] //= 2
    file = BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "PNG")

    [ours] = runner_of(served).forward([served.preprocessor.page(read_image(file.getvalue()))])
    with torch.inference_mode():
        trained = reader.pages(torch.from_numpy(pixels)[None])[0][0].numpy()
    start = len(reader.before)
    in_order = np.concatenate([trained[-start:], trained[:-start]])
    assert np.abs(ours - in_order).max() < TOLERANCE


def test_texts(reader: Reader, served: LoadedModel) -> None:
    """Queries as colpali-engine prepares them, augmentation tokens included, agree as well."""
    ours = runner_of(served).forward(served.preprocessor.texts(TEXTS))
    with torch.inference_mode():
        tokens, mask, ends = reader.texts(TEXTS)
    for one, row, kept, places in zip(ours, tokens, mask, ends, strict=True):
        assert np.abs(one - row[kept].numpy()).max() < TOLERANCE
        assert len(one) == places[-1] + AUGMENTATION


def test_queries_are_read_without_case_and_accents(served: LoadedModel) -> None:
    """What differs in case, accents or white space only is the same query, letter for letter."""
    plain, marked = served.preprocessor.texts(["cafe noir", "CAFÉ \n Noir"])
    assert plain.sequence["input_ids"].tolist() == marked.sequence["input_ids"].tolist()
