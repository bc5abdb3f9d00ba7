"""The drop-in for morphik-core's `ColpaliApiEmbeddingModel`, against a real service."""

import asyncio
import base64
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from installations import npz_release
from PIL import Image

from conftest import Service, png
from pagevec.errors import ConfigurationError, InvalidImage, Unauthorized
from pagevec.morphik import ColpaliApiEmbeddingModel, EmbeddingUnavailableError
from pagevec.types import MultiVector
from pagevec.wire.decode import decode_npz

T = TypeVar("T")


@dataclass
class Chunk:
    """Shaped like morphik-core's chunk."""

    content: str
    metadata: dict[str, Any] = field(default_factory=dict)


def page(seed: int, prefix: str = "data:image/png;base64,") -> Chunk:
    encoded = base64.b64encode(png(320, 240, seed)).decode()
    return Chunk(prefix + encoded, {"is_image": True})


def asked(service: Service, chunk: Chunk) -> MultiVector:
    """Return the vectors of one chunk as morphik-core's own client would get them."""
    is_image = chunk.metadata.get("is_image")
    content = chunk.content.split(",", 1)[-1] if is_image else chunk.content
    body = {"input_type": "image" if is_image else "text", "inputs": [content]}
    with service.client() as http:
        return decode_npz(http.post("/npz/embeddings", json=body).content)[0]


def run(model: ColpaliApiEmbeddingModel, call: Coroutine[Any, Any, T]) -> T:
    """Run the call in an event loop of its own, and close what it opened."""

    async def called() -> T:
        try:
            return await call
        finally:
            await model.aclose()

    return asyncio.run(called())


def test_chunks_in_order(service: Service) -> None:
    """Pages and texts, mixed and more than one request holds, come back in their order."""
    chunks = [page(0), Chunk("a text"), page(1, ""), Chunk("data:text,is text"), page(2)]
    model = ColpaliApiEmbeddingModel(f"{service.url}/npz", service.key, max_inputs=2)
    found = run(model, model.embed_for_ingestion(chunks))
    assert len(found) == len(chunks)
    for chunk, vectors in zip(chunks, found, strict=True):
        expected = asked(service, chunk)
        assert vectors.dtype == np.float32
        assert vectors.shape == expected.shape
        assert np.abs(vectors - expected).max() <= 1e-4


def test_metrics(service: Service) -> None:
    """Seconds and counts of the last ingestion are there under both names that releases use."""
    model = ColpaliApiEmbeddingModel(service.url, service.key)
    assert model.latest_ingest_metrics() == {}
    run(model, model.embed_for_ingestion([page(0), Chunk("a"), Chunk("b")]))
    metrics = model.latest_ingest_metrics()
    assert (metrics["image_count"], metrics["text_count"]) == (1, 2)
    assert metrics["total"] == pytest.approx(metrics["image_total"] + metrics["text_total"])
    assert model.latest_ingest_timing() == metrics


def test_one_chunk_and_none(service: Service) -> None:
    """A single chunk needs no list; an empty list sends no request."""
    model = ColpaliApiEmbeddingModel(service.url, service.key)
    assert len(run(model, model.embed_for_ingestion(Chunk("a text")))) == 1
    nobody = ColpaliApiEmbeddingModel("http://127.0.0.1:9", "any", attempts=1)
    assert run(nobody, nobody.embed_for_ingestion([])) == []


def test_queries(service: Service) -> None:
    """Queries are texts or Pillow images; each call may use its own event loop."""
    model = ColpaliApiEmbeddingModel(service.url, service.key)
    query = run(model, model.embed_for_query("which route?"))
    assert np.array_equal(query, run(model, model.generate_embeddings("which route?")))
    picture = Image.open(BytesIO(png(320, 240)))
    vectors = run(model, model.generate_embeddings(picture))
    assert np.abs(vectors - asked(service, page(0))).max() <= 1e-4


@pytest.mark.parametrize("content", ["no base64!", base64.b64encode(b"no image").decode()])
def test_the_chunk_to_blame(content: str, service: Service) -> None:
    """The index of an error is that of the chunk, not of the image."""
    bad = Chunk(content, {"is_image": True})
    model = ColpaliApiEmbeddingModel(service.url, service.key)
    with pytest.raises(InvalidImage) as caught:
        run(model, model.embed_for_ingestion([Chunk("a"), page(0), Chunk("b"), bad]))
    assert caught.value.index == 3


def test_what_may_pass_and_what_not(service: Service) -> None:
    """An unreachable service raises an error that morphik-core retries, a wrong key does not."""
    nobody = ColpaliApiEmbeddingModel("http://127.0.0.1:9", "any", attempts=1)
    with pytest.raises(EmbeddingUnavailableError) as caught:
        run(nobody, nobody.embed_for_ingestion([page(0)]))
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(EmbeddingUnavailableError):
        run(nobody, nobody.embed_for_query("a"))
    stranger = ColpaliApiEmbeddingModel(service.url, "wrong")
    with pytest.raises(Unauthorized):
        run(stranger, stranger.embed_for_query("a"))


def test_settings_of_the_installation(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments it reads morphik.toml here and the key from the environment."""
    monkeypatch.chdir(npz_release(tmp_path))
    monkeypatch.delenv("MORPHIK_EMBEDDING_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="must both be set"):
        ColpaliApiEmbeddingModel()
    monkeypatch.setenv("MORPHIK_EMBEDDING_API_KEY", service.key)
    toml = tmp_path / "morphik.toml"
    toml.write_text(toml.read_text().replace("http://localhost:6000", f"{service.url}/npz"))
    model = ColpaliApiEmbeddingModel()
    assert model.endpoints == [service.url]
    assert len(run(model, model.embed_for_query("hello"))) > 0


def test_it_loads_little() -> None:
    """Importing it loads the base install only: no torch, tomlkit, python-dotenv or FastAPI."""
    code = (
        "import sys, pagevec.morphik; "
        "print({'torch', 'tomlkit', 'dotenv', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
