"""Every family that is served: a tiny checkpoint in its real file layout, loaded for real."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from checkpoints import (
    DIMENSIONS,
    FAMILIES,
    LEGACY_ADAPTERS,
    build_adapter,
    build_checkpoint,
    model_class,
    processor_class,
)
from checkpoints.layouts import LAYOUTS
from conftest import make_settings, png
from pagevec.engine.backends import backend_of
from pagevec.engine.backends.base import Backend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import LoadedModel, load
from pagevec.engine.models.registry import FAMILIES as SERVED
from pagevec.errors import CheckpointError, ConfigurationError, InvalidText
from pagevec.images import read_image

SIZES = [(300, 200), (1, 1), (256, 1), (120, 400)]
TEXTS = ["hello", "", "a longer query with more words in it", "Öl 値段 🚢"]


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: str = request.param
    return build_checkpoint(family, tmp_path_factory.mktemp("checkpoints") / family)


@pytest.fixture(scope="module")
def family(checkpoint: Path) -> str:
    return checkpoint.name


@pytest.fixture(scope="module")
def embedder(checkpoint: Path) -> Iterator[LocalEmbedder]:
    engine = LocalEmbedder(lambda: backend(checkpoint), batch_tokens=4096)
    engine.wait_until_ready()
    yield engine
    engine.close()


def loaded(checkpoint: Path, **settings: Any) -> LoadedModel:
    return load(make_settings(model=str(checkpoint), offline=True, **settings))


def backend(checkpoint: Path, **settings: Any) -> Backend[Any]:
    return backend_of(loaded(checkpoint, **settings))


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= 1e-4)


def test_the_table_names_every_family() -> None:
    """Every family that `pagevec models` lists is tested, here or in test_layouts.py."""
    in_layouts = {family for family, _ in LAYOUTS.values()}
    assert {family.name for family in SERVED} == {*FAMILIES, *in_layouts}


def test_family_is_read_from_the_checkpoint(embedder: LocalEmbedder, family: str) -> None:
    """config.json decides the family; info() has its true dimension."""
    assert embedder.info().family == family
    assert embedder.info().dim == DIMENSIONS[family]


def test_pages_equal_colpali_engine(embedder: LocalEmbedder, family: str, checkpoint: Path) -> None:
    """A page's vectors are those of the family's own processor and model."""
    model = model_class(family).from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = processor_class(family).from_pretrained(checkpoint)
    for size in [(300, 200), (120, 400)]:
        batch = processor.process_images([Image.open(BytesIO(png(*size))).convert("RGB")])
        with torch.inference_mode():
            [theirs] = model(**batch)
        [ours] = embedder.embed_images([read_image(png(*size))]).result().vectors
        assert close(ours, theirs[batch["attention_mask"][0].bool()].numpy())


def test_texts_equal_colpali_engine(embedder: LocalEmbedder, family: str, checkpoint: Path) -> None:
    """A text's vectors are those of process_queries and the model, for each text alone."""
    model = model_class(family).from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = processor_class(family).from_pretrained(checkpoint)
    for text, ours in zip(TEXTS, embedder.embed_texts(TEXTS).result().vectors, strict=True):
        with torch.inference_mode():
            [theirs] = model(**processor.process_queries([text]))
        assert close(ours, theirs.numpy())


def test_batch_equals_single(checkpoint: Path) -> None:
    """Inputs of different sizes and lengths share a forward pass and keep their vectors."""
    model = backend(checkpoint)
    pages = [model.prepare_page(read_image(png(*size))) for size in SIZES]
    for batch in (pages, list(model.prepare_texts(TEXTS))):
        for one, vectors in zip(batch, model.forward(batch), strict=True):
            [alone] = model.forward([one])
            assert close(vectors, alone)
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_page_tokens_are_known_from_the_size(checkpoint: Path) -> None:
    """The cost of a page, computed from its size, is the length of its sequence."""
    model = backend(checkpoint)
    for size in [*SIZES, (1240, 1754)]:
        prepared = model.prepare_page(read_image(png(*size)))
        assert model.page_tokens(*size) == prepared.tokens


def test_texts_with_control_tokens(embedder: LocalEmbedder) -> None:
    """A text with a placeholder for images is answered, or refused with its index."""
    for text in ("<|image_pad|>", "see <image> here", "<|endoftext|>", "<start_of_image>"):
        future = embedder.embed_texts(["before", text])
        try:
            assert all(np.isfinite(vectors).all() for vectors in future.result().vectors)
        except InvalidText as error:
            assert error.index == 1
    assert embedder.health().state == "ready"


def assert_merged_equals_unmerged(family: str, checkpoint: Path, adapter: Path) -> None:
    merged = loaded(adapter)
    unmerged = model_class(family).from_pretrained(adapter, dtype=torch.float32).eval()
    assert not any("lora" in name for name, _ in merged.model.named_modules())
    batch = list(backend_of(merged).prepare_texts(TEXTS[2:3]))
    [ours] = backend_of(merged).forward(batch)
    with torch.inference_mode():
        [theirs] = unmerged(**{name: t[None] for name, t in batch[0].sequence.items()})
    [base] = backend(checkpoint).forward(batch)
    assert np.abs(ours - theirs.numpy()).max() <= 1e-5
    assert np.abs(ours - base).max() > 1e-3


class TestAdapters:
    def test_merged_equals_unmerged(self, family: str, checkpoint: Path, tmp_path: Path) -> None:
        """A LoRA adapter changes its base's vectors; merging it does not change them further."""
        adapter = build_adapter(family, checkpoint, tmp_path / "adapter")
        assert_merged_equals_unmerged(family, checkpoint, adapter)

    @pytest.mark.parametrize("older", LEGACY_ADAPTERS)
    def test_published_adapters(self, older: str, tmp_path: Path) -> None:
        """Adapters with the tensor names of older versions, as published, load and merge too."""
        base = build_checkpoint(older, tmp_path / "base")
        adapter = build_adapter(older, base, tmp_path / "adapter", legacy_keys=True)
        assert_merged_equals_unmerged(older, base, adapter)

    def test_an_adapter_that_does_not_fit(
        self, family: str, checkpoint: Path, tmp_path: Path
    ) -> None:
        """Tensors of an adapter that find no place stop the start, and are named."""
        adapter = build_adapter(family, checkpoint, tmp_path / "adapter")
        weights = load_file(adapter / "adapter_model.safetensors")
        renamed = {name.replace("lora_A", "lora_Q"): one for name, one in weights.items()}
        save_file(renamed, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match="lora_"):
            loaded(adapter)


class TestIncomplete:
    """A checkpoint without all its weights is never served with random ones."""

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        return build_checkpoint("colqwen2_5", tmp_path / "copy")

    def test_no_projection(self, copy: Path) -> None:
        """Without the projection's weights the start stops and names them."""
        edit_weights(copy, lambda name: "custom_text_proj" not in name)
        with pytest.raises(CheckpointError, match="custom_text_proj"):
            loaded(copy)

    def test_no_projection_in_the_base_of_an_adapter(self, copy: Path, tmp_path: Path) -> None:
        """An adapter on a plain vision-language model, without a projection, is refused too."""
        adapter = build_adapter("colqwen2_5", copy, tmp_path / "adapter")
        edit_weights(copy, lambda name: "custom_text_proj" not in name)
        with pytest.raises(CheckpointError, match="custom_text_proj"):
            loaded(adapter)

    def test_a_layer_is_missing(self, copy: Path) -> None:
        """One tensor too few is enough."""
        edit_weights(copy, lambda name: "layers.1.mlp.down_proj" not in name)
        with pytest.raises(CheckpointError, match=r"missing.*down_proj"):
            loaded(copy)

    def test_a_tensor_too_many(self, copy: Path) -> None:
        """Weights that the model has no place for mean that it is another model."""
        file = copy / "model.safetensors"
        extra = {**load_file(file), "language_model.extra.weight": torch.ones(2)}
        save_file(extra, file, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"unexpected.*extra"):
            loaded(copy)

    def test_an_unknown_family(self, copy: Path) -> None:
        """Another model_type is refused with the list of those that are served."""
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
        with pytest.raises(CheckpointError, match=r"'bert'.*qwen2_5_vl"):
            loaded(copy)

    def test_a_named_family(self, copy: Path) -> None:
        """The settings may name the family; a wrong name is refused with the known ones."""
        assert loaded(copy, family="colqwen2_5").info.family == "colqwen2_5"
        with pytest.raises(CheckpointError, match=r"colqwen9.*colpali"):
            loaded(copy, family="colqwen9")

    def test_nothing_there(self, tmp_path: Path) -> None:
        """A folder without a checkpoint, and a name that cannot be looked up offline."""
        for source in (str(tmp_path), "somebody/something"):
            with pytest.raises(CheckpointError, match=source):
                load(make_settings(model=source, offline=True))


class TestOptions:
    def test_max_visual_tokens(self, tmp_path: Path) -> None:
        """A page can have fewer visual tokens than the checkpoint allows."""
        checkpoint = build_checkpoint("colqwen2_5", tmp_path / "one")
        page = read_image(png(1240, 1754))
        full = backend(checkpoint).prepare_page(page).tokens
        fewer = backend(checkpoint, max_visual_tokens=32).prepare_page(page).tokens
        assert fewer < full
        assert fewer <= 32 + 20

    def test_max_visual_tokens_of_other_families(self, tmp_path: Path) -> None:
        """A family whose pages cannot be limited says so, rather than ignoring the setting."""
        checkpoint = build_checkpoint("colpali", tmp_path / "one")
        with pytest.raises(ConfigurationError, match="PAGEVEC_MAX_VISUAL_TOKENS"):
            loaded(checkpoint, max_visual_tokens=32)

    def test_dtype(self, tmp_path: Path) -> None:
        """bfloat16 weights give float32 vectors of unit length, close to those of float32."""
        checkpoint = build_checkpoint("colqwen2_5", tmp_path / "one")
        full, half = backend(checkpoint), backend(checkpoint, dtype="bfloat16")
        batch = list(full.prepare_texts(TEXTS[:1]))
        [exact], [rounded] = full.forward(batch), half.forward(batch)
        assert half.info().dtype == "bfloat16"
        assert rounded.dtype == np.float32
        assert np.allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)
        assert (exact * rounded).sum(axis=1).min() > 0.99


def edit_weights(checkpoint: Path, keep: Any) -> None:
    file = checkpoint / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if keep(name)}
    save_file(kept, file, metadata={"format": "pt"})
