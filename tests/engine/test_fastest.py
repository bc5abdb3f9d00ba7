"""`PAGEVEC_PRECISION=fastest`: what this processor is fastest at, and near enough to float32."""

from typing import Any

import pytest
import torch
from benchmarks.emulated_cuda import emulated_cuda

from checkpoints import build_checkpoint
from conftest import make_settings, png
from pagevec.engine.backends import fastest, load
from pagevec.engine.backends.base import Backend
from pagevec.engine.backends.fastest import Numbers
from pagevec.images import read_image
from pagevec.types import MultiVector

FLOAT32, BFLOAT16, INT8 = (
    Numbers(torch.float32, "full"),
    Numbers(torch.bfloat16, "full"),
    Numbers(torch.float32, "int8"),
)


def embed(backend: Backend[Any]) -> MultiVector:
    [vectors] = backend.forward([backend.prepare_page(read_image(png(300, 200)))])
    return vectors


def mean_cosine(ours: MultiVector) -> float:
    """Return the mean cosine with the bundled model's vectors in float32."""
    exact = embed(load(make_settings(model="bundled", precision="full")))
    return float((ours * exact).sum(axis=1).mean())


def start(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> Backend[Any]:
    """Load the bundled model on a processor that takes so long for two layers."""
    known = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
    monkeypatch.setattr(fastest, "_candidates", lambda: [known[name] for name in seconds])
    monkeypatch.setattr(fastest, "_time_layers", lambda _, numbers: seconds[str(numbers)])
    return load(make_settings(model="bundled", precision="fastest"))


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"float32": 3.0, "bfloat16": 1.0, "int8": 2.0}, ("bfloat16", "full")),
        ({"float32": 3.0, "bfloat16": 2.0, "int8": 1.0}, ("float32", "int8")),
        ({"float32": 1.05, "bfloat16": 1.0}, ("float32", "full")),
        ({"float32": 1.0}, ("float32", "full")),
    ],
)
def test_the_fastest_is_used_where_it_is_worth_it(
    seconds: dict[str, float], chosen: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """info() says what was chosen, packed as always, and vectors stay near those of float32."""
    backend = start(monkeypatch, **seconds)
    info = backend.info()
    assert (info.dtype, info.precision) == chosen
    assert (info.forward, info.fallback) == ("packed", None)
    least = 0.999999 if chosen == ("float32", "full") else 0.99
    assert least < mean_cosine(embed(backend)) < 1.00001


def test_this_processor() -> None:
    """Measured for real: something that the processor has, near float32."""
    backend = load(make_settings(model="bundled", precision="fastest"))
    known = {
        (str(one.dtype).removeprefix("torch."), one.precision) for one in fastest._candidates()
    }
    assert (backend.info().dtype, backend.info().precision) in known
    assert mean_cosine(embed(backend)) > 0.99


def test_vectors_that_become_too_inexact(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is loaded once more, in float32, and the log says why."""

    def spoil(model: torch.nn.Module, _: Numbers) -> None:
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter)

    monkeypatch.setattr(fastest, "_convert", spoil)
    backend = start(monkeypatch, float32=2.0, bfloat16=1.0)
    assert (backend.info().dtype, backend.info().precision) == ("float32", "full")
    assert mean_cosine(embed(backend)) > 0.999999
    assert "too far from those in float32" in caplog.text


def test_a_processor_with_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AVX-512 BF16, AMX and VNNI nothing but float32 is tried."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_vnni_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert fastest._candidates() == [FLOAT32]


def test_layers_in_all_numbers_are_timed() -> None:
    """One layer of either tower runs in float32, bfloat16 and int8; the model stays as it is."""
    from pagevec.engine.models.loader import load as load_model

    loaded = load_model(make_settings(model="bundled"))
    before = {name: one.clone() for name, one in loaded.model.named_parameters()}
    assert all(fastest._time_layers(loaded, one) > 0 for one in (FLOAT32, BFLOAT16, INT8))
    assert all(one.equal(before[name]) for name, one in loaded.model.named_parameters())


def test_a_gpu_is_fastest_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On CUDA the weights' own bfloat16 is used; int8 would be slower there."""
    checkpoint = build_checkpoint("colqwen2_5", tmp_path_factory.mktemp("fastest") / "colqwen2_5")
    settings = make_settings(model=str(checkpoint), device="cuda", precision="fastest")
    with emulated_cuda():
        info = load(settings).info()
    assert (info.dtype, info.precision) == ("bfloat16", "full")


def test_a_family_with_padding(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It runs in float32: transformers' own layers are not measured."""
    checkpoint = build_checkpoint("colpali", tmp_path_factory.mktemp("fastest") / "colpali")
    info = load(make_settings(model=str(checkpoint), precision="fastest", offline=True)).info()
    assert (info.dtype, info.precision) == ("float32", "full")
