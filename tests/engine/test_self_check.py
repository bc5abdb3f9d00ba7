"""At start, a packed pass that is wrong is noticed, and the padded one serves in its place."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from conftest import Service, make_settings, png, running
from pagevec.engine.backends import load, padded
from pagevec.engine.backends.base import read_hints
from pagevec.engine.backends.packed import backend as packed_backend
from pagevec.engine.backends.packed import language, vision
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.backends.packed.layers import CosSin, apply_rotary
from pagevec.engine.backends.padded import PaddedBackend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import CheckpointError, InternalError
from pagevec.images import read_image


def turn_wrongly(pairs: torch.Tensor, cos_sin: CosSin) -> torch.Tensor:
    """Rotate with one sign wrong: first x cos + second x sin."""
    first, second = pairs.chunk(2, dim=-1)
    cos, sin = (one.view(len(one), *[1] * (pairs.dim() - 2), -1) for one in cos_sin)
    right = apply_rotary(pairs, cos_sin)
    right.chunk(2, dim=-1)[0].copy_(first * cos + second * sin)
    return right


@pytest.fixture(params=[vision, language], ids=["vision", "language"])
def wrong_tower(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(request.param, "apply_rotary", turn_wrongly)
    return request.param


def test_a_packed_pass_that_is_right_serves() -> None:
    """The bundled model runs without padding, and info() says so."""
    backend = load(make_settings(model="bundled"))
    assert isinstance(backend, PackedBackend)
    assert (backend.info().forward, backend.info().fallback) == ("packed", None)


def test_a_wrong_sign_of_one_rotary_embedding(wrong_tower: Any) -> None:
    """The padded pass serves, with its own hints and its own vectors, and info() tells why."""
    backend = load(make_settings(model="bundled"))
    assert isinstance(backend, PaddedBackend)
    info = backend.info()
    assert info.forward == "padded"
    assert info.fallback is not None
    assert "other vectors than colpali-engine's own: mean cosine" in info.fallback
    assert read_hints(backend).padded
    right = load(make_settings(model="bundled", forward="padded"))
    page = read_image(png(300, 200))
    [ours], [theirs] = (one.forward([one.prepare_page(page)]) for one in (backend, right))
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_packed_pass_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, the padded pass serves; the reason is that of the library."""

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(language, "attend", fail)
    info = load(make_settings(model="bundled")).info()
    assert info.fallback is not None
    assert "no kernel image" in info.fallback


def test_memory_that_does_not_suffice_is_no_fault_of_the_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The padded pass would need more: the start fails and says so."""

    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(language, "attend", fail)
    with pytest.raises(CheckpointError, match="out of memory"):
        load(make_settings(model="bundled"))


def test_numbers_beyond_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither pass gives finite numbers in float16, the start fails with a way out."""

    def overflow(vectors: torch.Tensor, *_: Any) -> Any:
        raise InternalError("the model returned numbers that are not finite")

    for module in (packed_backend, padded):
        monkeypatch.setattr(module, "split_rows", overflow)
    with pytest.raises(CheckpointError, match=r"PAGEVEC_DTYPE=float32.*not finite"):
        load(make_settings(model="bundled", dtype="float16"))


@pytest.mark.parametrize("forward", ["packed", "padded"])
def test_a_setting_forces_either_pass(wrong_tower: Any, forward: str) -> None:
    """PAGEVEC_FORWARD is obeyed, whatever a comparison would say."""
    info = load(make_settings(model="bundled", forward=forward)).info()
    assert (info.forward, info.fallback) == (forward, None)


class TestService:
    @pytest.fixture
    def service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
        monkeypatch.setattr(vision, "apply_rotary", turn_wrongly)
        settings = make_settings(model="bundled")
        embedder = LocalEmbedder.of(settings, lambda: load(settings))
        embedder.wait_until_ready()
        with running(embedder, settings) as service:
            yield service
        embedder.close()

    def test_info_and_a_metric_tell(self, service: Service) -> None:
        """GET /info has the reason, GET /metrics a 1, and pages are embedded."""
        with service.client() as client:
            info = client.get("/info").json()
            assert info["forward"] == "padded"
            assert "mean cosine" in info["fallback"]
            assert "pagevec_fallback 1.0" in client.get("/metrics").text
            page = base64.b64encode(png(300, 200)).decode()
            body = {"input_type": "image", "inputs": [page, page]}
            assert client.post("/embeddings", json=body).status_code == httpx.codes.OK


def test_the_metric_of_a_packed_pass(service: Service) -> None:
    """Without a fallback the metric is 0."""
    with service.client() as client:
        assert "pagevec_fallback 0.0" in client.get("/metrics").text
