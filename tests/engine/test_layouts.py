"""Checkpoints in the layouts of other libraries, loaded completely: those libraries' vectors."""

import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from checkpoints import build_checkpoint
from checkpoints.layouts import LAYOUTS, Layout
from conftest import make_settings, png
from pagevec.engine.backends import load
from pagevec.engine.backends.self_check import embed_samples
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.registry import REFUSED
from pagevec.errors import CheckpointError
from pagevec.images import read_image

SIZES = [(300, 200), (200, 300), (120, 400), (64, 64)]
TEXTS = ["hello", "", " a longer query with more words in it ", "Öl 値段 🚢"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=LAYOUTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts") / "checkpoint"


@pytest.fixture(scope="module")
def theirs(name: str, folder: Path) -> Layout:
    return LAYOUTS[name][1](folder)


@pytest.fixture(scope="module", params=["packed", "padded"])
def embedder(
    request: pytest.FixtureRequest, theirs: Layout, folder: Path
) -> Iterator[LocalEmbedder]:
    settings = make_settings(model=str(folder), offline=True, forward=request.param)
    engine = LocalEmbedder(lambda: load(settings), batch_tokens=4096)
    engine.wait_until_ready()
    yield engine
    engine.close()


def test_family_and_dim(embedder: LocalEmbedder, theirs: Layout, name: str) -> None:
    """config.json decides the family, the weights the width of the vectors."""
    assert embedder.info().family == LAYOUTS[name][0]
    assert embedder.info().dim == theirs.dim


def test_pages(embedder: LocalEmbedder, theirs: Layout) -> None:
    """Pages, in one batch, have the library's vectors."""
    files = [png(*size) for size in SIZES]
    ours = embedder.embed_images([read_image(file) for file in files]).result().vectors
    for one, file in zip(ours, files, strict=True):
        assert_equal(one, theirs.embed_image(Image.open(BytesIO(file)).convert("RGB")))


def test_texts(embedder: LocalEmbedder, theirs: Layout) -> None:
    """Queries, in one batch, have the library's vectors: prefix, suffix and white space too."""
    for one, text in zip(embedder.embed_texts(TEXTS).result().vectors, TEXTS, strict=True):
        assert_equal(one, theirs.embed_text(text))


def assert_equal(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_missing_weights(theirs: Layout, folder: Path, tmp_path: Path) -> None:
    """Without any one of its weights a checkpoint is refused by name, never filled at random."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    names = [key for key in weights if "lm_head" not in key]
    for lost in (names[0], names[len(names) // 2], names[-1]):
        rest = {key: tensor for key, tensor in weights.items() if key != lost}
        save_file(rest, copy / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=f"{copy} did not load completely"):
            load(make_settings(model=str(copy), offline=True))


def test_the_width_is_that_of_the_weights(tmp_path: Path) -> None:
    """A projection narrower than the one of colpali-engine's class is read as it is."""
    checkpoint = build_checkpoint("colqwen2_5", tmp_path / "whole")
    narrow = tmp_path / "narrow"
    shutil.copytree(checkpoint, narrow)
    weights = load_file(checkpoint / "model.safetensors")
    for part in ("weight", "bias"):
        weights[f"custom_text_proj.{part}"] = weights[f"custom_text_proj.{part}"][:40].clone()
    save_file(weights, narrow / "model.safetensors", metadata={"format": "pt"})
    whole, first = (
        embed_samples(load(make_settings(model=str(one), offline=True)))
        for one in (checkpoint, narrow)
    )
    for one, other in zip(whole, first, strict=True):
        assert other.shape == (len(one), 40)
        assert_equal(other, one[:, :40] / np.linalg.norm(one[:, :40], axis=1, keepdims=True))


def test_a_type_of_another_name(tmp_path: Path) -> None:
    """Where its family is named, a checkpoint of an unknown type is read with its own sizes."""
    checkpoint = build_checkpoint("colqwen2_5", tmp_path / "whole")
    before = embed_samples(load(make_settings(model=str(checkpoint), offline=True)))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "mine"}))
    with pytest.raises(CheckpointError, match="'mine' in config"):
        load(make_settings(model=str(checkpoint), offline=True))
    settings = make_settings(model=str(checkpoint), offline=True, family="colqwen2_5")
    for one, other in zip(before, embed_samples(load(settings)), strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_is_refused(model_type: str, tmp_path: Path) -> None:
    """A layout that is known and not read is refused by name, with what to do."""
    checkpoint = build_checkpoint("colqwen3", tmp_path / "refused")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    with pytest.raises(CheckpointError) as refusal:
        load(make_settings(model=str(checkpoint), offline=True))
    assert REFUSED[model_type] in str(refusal.value)
    assert "PAGEVEC_FAMILY=sentence-transformers" in str(refusal.value)
