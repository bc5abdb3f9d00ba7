"""sentence-transformers both ways: its checkpoints here, the bundled one there, and its backend."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from checkpoints.layouts import LAYOUTS
from conftest import make_settings, png
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend
from pagevec.engine.models.compat import import_torchvision
from pagevec.engine.models.registry import bundled_checkpoint
from pagevec.errors import CheckpointError, ConfigurationError, InvalidImage, TextTooLong
from pagevec.images import read_image

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

TEXTS = ["hello", "", " two  words ", "Öl 値段 🚢"]
FILES = [png(300, 200), png(120, 400), png(64, 64)]
TOLERANCE = 1e-4


def read_encoder(folder: Path) -> Any:
    import_torchvision()
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def serve(folder: Path, family: str = "auto", **settings: Any) -> Backend[Any]:
    return load(make_settings(model=str(folder), offline=True, family=family, **settings))


def assert_same(ours: Backend[Any], theirs: Any, files: list[bytes] = FILES) -> None:
    """Check the vectors of queries, and of pages if there are some."""
    images = [Image.open(BytesIO(file)).convert("RGB") for file in files]
    pairs = zip(TEXTS, theirs.encode_query(TEXTS, convert_to_numpy=True), strict=True)
    for text, vectors in pairs:
        assert_equal(ours.forward(list(ours.prepare_texts([text])))[0], vectors)
    if files:
        pages = theirs.encode_document(images, convert_to_numpy=True)
        together = ours.forward([ours.prepare_page(read_image(file)) for file in files])
        for one, vectors in zip(together, pages, strict=True):
            assert_equal(one, vectors)


def assert_equal(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE


@pytest.fixture(scope="module")
def bundled() -> Any:
    return read_encoder(bundled_checkpoint())


@pytest.fixture(scope="module")
def saved(bundled: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that sentence-transformers wrote."""
    folder = tmp_path_factory.mktemp("encoder") / "saved"
    bundled.save_pretrained(str(folder))
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_library_loads_the_bundled_model(bundled: Any) -> None:
    """sentence-transformers has the bundled model's vectors, none of its weights random."""
    assert [type(one).__name__ for one in bundled] == [
        "Transformer",
        "Dense",
        "Normalize",
        "MultiVectorMask",
    ]
    assert_same(serve(bundled_checkpoint()), bundled)


def test_its_checkpoint_is_served(saved: Path, bundled: Any) -> None:
    """What the library wrote is served packed: the projection is that of its Dense module."""
    assert "custom_text_proj.weight" not in load_file(saved / "model.safetensors")
    ours = serve(saved)
    assert (ours.info().family, ours.info().forward, ours.info().dim) == (
        "colqwen2_5",
        "packed",
        128,
    )
    assert_same(ours, bundled)


def with_other_prompts(folder: Path) -> None:
    change(folder / "config_sentence_transformers.json", prompts={"query": "search: "})


def with_another_template(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("Describe", "Index"))


def with_a_skiplist_of_tokens(folder: Path) -> None:
    change(folder / "3_MultiVectorMask" / "config.json", keep_only_token_ids=[262])


def with_an_activation(folder: Path) -> None:
    change(folder / "1_Dense" / "config.json", activation_function="torch.nn.GELU")


@pytest.mark.parametrize(
    "alter",
    [with_other_prompts, with_another_template, with_a_skiplist_of_tokens, with_an_activation],
)
def test_what_only_the_library_can_serve(alter: Any, copy: Path) -> None:
    """What would give other vectors here is refused by name, and served by the library."""
    alter(copy)
    with pytest.raises(CheckpointError, match=f"{copy} has .*PAGEVEC_FAMILY=sentence-transformers"):
        serve(copy)
    ours = serve(copy, "sentence-transformers")
    assert ours.info().forward == "padded"
    assert_same(ours, read_encoder(copy))


def lose_projection(folder: Path) -> None:
    (folder / "1_Dense" / "model.safetensors").unlink()


def lose_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()


def lose_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["language_model.layers.0.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["auto", "sentence-transformers"])
@pytest.mark.parametrize("lose", [lose_projection, lose_modules, lose_weight])
def test_nothing_is_random(lose: Any, family: str, copy: Path) -> None:
    """Neither way is a model served of which a part is missing."""
    lose(copy)
    with pytest.raises(CheckpointError, match=str(copy)):
        serve(copy, family)


@pytest.mark.parametrize("name", ["colqwen2_hf", "colpali_hf"])
def test_transformers_own_models(name: str, tmp_path: Path) -> None:
    """The library's backend serves what it knows itself, with its vectors."""
    theirs = LAYOUTS[name][1](tmp_path / "native")
    ours = serve(tmp_path / "native", "sentence-transformers")
    assert ours.info().dim == theirs.dim
    for file in FILES:
        page = ours.prepare_page(read_image(file))
        [vectors] = ours.forward([page])
        assert page.tokens == len(vectors)
        assert_equal(vectors, theirs.embed_image(Image.open(BytesIO(file)).convert("RGB")))
    for text in TEXTS:
        assert_equal(ours.forward(list(ours.prepare_texts([text])))[0], theirs.embed_text(text))


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ColBERT, which embeds texts alone, and reads 16 tokens of a query."""
    import_torchvision()
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from transformers import BertConfig, BertModel, BertTokenizerFast

    backbone = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in words[5:]]
    (backbone / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(backbone / "vocab.txt")).save_pretrained(backbone)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(backbone)
    modules = [
        Transformer(str(backbone), query_length=16),
        Dense(32, 48, bias=False, activation_function=None, module_input_name="token_embeddings"),
        MultiVectorMask(),
        Normalize(module_input_name="token_embeddings"),
    ]
    folder = tmp_path_factory.mktemp("colbert") / "model"
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def test_texts_alone(colbert: Path) -> None:
    """A model without images serves texts; pages are refused, and texts that it would cut."""
    ours = serve(colbert, "sentence-transformers")
    assert ours.info().dim == 48
    assert_same(ours, read_encoder(colbert), files=[])
    with pytest.raises(InvalidImage, match="embeds texts alone"):
        ours.prepare_page(read_image(FILES[0]))
    with pytest.raises(TextTooLong, match="the model takes 16; split it") as refusal:
        ours.prepare_texts(["a", "b " * 40])
    assert refusal.value.index == 1


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server on loopback, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png(64, 64))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_nothing_is_fetched(server: tuple[str, list[str]], tmp_path: Path) -> None:
    """Addresses and paths of images in texts are texts, whatever the library makes of strings."""
    address, asked = server
    file = tmp_path / "page.png"
    file.write_bytes(png(64, 64))
    ours = serve(bundled_checkpoint(), "sentence-transformers")
    exact = serve(bundled_checkpoint())
    for text in (f"{address}/page.png", str(file), f"{address}/film.mp4"):
        [vectors] = ours.forward(list(ours.prepare_texts([text])))
        assert_equal(vectors, exact.forward(list(exact.prepare_texts([text])))[0])
    assert asked == []


@pytest.mark.parametrize(
    ("name", "settings"),
    {
        "PAGEVEC_PRECISION": {"precision": "int8"},
        "PAGEVEC_FORWARD": {"forward": "packed"},
        "PAGEVEC_MAX_VISUAL_TOKENS": {"max_visual_tokens": 64},
    }.items(),
)
def test_useless_settings(name: str, settings: dict[str, Any]) -> None:
    """A setting that the library cannot follow is refused, not ignored."""
    with pytest.raises(ConfigurationError, match=f"{name} has no effect"):
        serve(bundled_checkpoint(), "sentence-transformers", **settings)
