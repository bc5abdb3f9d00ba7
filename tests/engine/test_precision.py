"""Reduced precision: what it changes, what it leaves alone, and where it is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.data import make_images
from torch import nn

from checkpoints import FAMILIES, build_checkpoint
from conftest import make_settings, pagevec
from pagevec.engine.backends import backend_of
from pagevec.engine.backends.base import Backend, Prepared
from pagevec.engine.backends.packed.layers import FusedLinear, GatedMLP
from pagevec.engine.models import precision
from pagevec.engine.models.loader import LoadedModel, load, on_device, read
from pagevec.engine.models.precision import reduce_precision, require_precision
from pagevec.errors import ConfigurationError
from pagevec.types import MultiVector

CPU = torch.device("cpu")
SIZES = [(300, 200), (256, 3), (120, 400)]
TEXTS = ["hello", "", "a longer query with more words in it"]
# Of eight bits a CPU without VNNI uses seven.
NEAR = 0.98


def batches(backend: Backend[Any]) -> list[list[Prepared]]:
    # Pieces of print, which the weights are trained for: on random marks a rounded activation may
    # decide between two readings.
    pages = [backend.prepare_page(image) for size in SIZES for image in make_images(1, size)]
    return [pages, list(backend.prepare_texts(TEXTS))]


def vectors_of(model: LoadedModel) -> MultiVector:
    backend = backend_of(model)
    return np.concatenate([one for batch in batches(backend) for one in backend.forward(batch)])


def cosines(one: MultiVector, other: MultiVector) -> MultiVector:
    return (one * other).sum(axis=1)


def in_a_layer(module: nn.Module) -> nn.Module:
    """Return a model whose first layer is `module`."""
    return nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList([module])})})


@pytest.fixture(scope="module")
def full() -> LoadedModel:
    return load(make_settings())


@pytest.fixture(scope="module")
def int8(full: LoadedModel) -> LoadedModel:
    return load(make_settings(precision="int8"))


class TestInt8:
    def test_vectors_are_near(self, full: LoadedModel, int8: LoadedModel) -> None:
        """Vectors stay unit, each points where the exact one does, and none is the exact one."""
        exact, reduced = vectors_of(full), vectors_of(int8)
        assert np.allclose(np.linalg.norm(reduced, axis=1), 1, atol=1e-5)
        assert cosines(exact, reduced).min() > NEAR
        assert cosines(exact, reduced).max() < 1 - 1e-7

    def test_batch_equals_single(self, int8: LoadedModel) -> None:
        """Each token has its own scale: other inputs of its batch do not change its vector."""
        backend = backend_of(int8)
        for batch in batches(backend):
            for one, vectors in zip(batch, backend.forward(batch), strict=True):
                assert cosines(vectors, backend.forward([one])[0]).min() > 0.9999

    def test_full_changes_nothing(self, full: LoadedModel, int8: LoadedModel) -> None:
        """Full precision is bit for bit the same, also after another model was reduced."""
        before = vectors_of(full)
        assert int8.info.precision == "int8"
        assert np.array_equal(before, vectors_of(load(make_settings(precision="full"))))
        assert np.array_equal(before, vectors_of(full))

    def test_what_is_reduced(self, int8: LoadedModel) -> None:
        """The linear layers of both towers are reduced, and nothing else."""
        names = {
            name
            for name, module in int8.model.named_modules()
            if isinstance(module, nn.Linear) and type(module.weight.data) is torch.Tensor
        }
        assert names == {"custom_text_proj", "visual.merger.mlp.0", "visual.merger.mlp.2"}

    def test_read_then_moved(self, int8: LoadedModel) -> None:
        """A model that is read first and moved later, or twice (snapshots), is reduced once."""
        moved = on_device(read(make_settings(precision="int8"), CPU), CPU)
        moved = on_device(moved, CPU)
        assert np.array_equal(vectors_of(moved), vectors_of(int8))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_family(self, family: str, tmp_path: Path) -> None:
        """Packed or padded, a family's vectors stay near those of full precision."""
        checkpoint = build_checkpoint(family, tmp_path / family)

        def vectors(precision: str) -> MultiVector:
            settings = make_settings(model=str(checkpoint), offline=True, precision=precision)
            return vectors_of(load(settings))

        near = cosines(vectors("full"), vectors("int8"))
        assert 0.995 < near.mean() < 1 - 1e-7


class TestFp8:
    """FP8's numbers, with torch's product for the CPU; its speed needs a GPU."""

    @pytest.fixture(autouse=True)
    def on_a_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchao.quantization import quant_api

        monkeypatch.setattr(precision, "_has_fp8", lambda _: True)
        monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _: None)

    @pytest.mark.parametrize("family", ["bundled", "colqwen2_5", "colpali"])
    def test_vectors_are_near(self, family: str, tmp_path: Path) -> None:
        """Packed and padded, vectors are finite and near; a token of zeros has no scale of zero."""
        model = family if family == "bundled" else str(build_checkpoint(family, tmp_path / family))

        def vectors(precision: str) -> MultiVector:
            settings = make_settings(model=model, dtype="bfloat16", precision=precision)
            return vectors_of(load(settings))

        exact, reduced = vectors("full"), vectors("fp8")
        assert np.allclose(np.linalg.norm(reduced, axis=1), 1, atol=1e-5)
        assert 0.99 < cosines(exact, reduced).mean() < 1 - 1e-6


class TestFusedLinear:
    def test_fused_equals_single(self) -> None:
        """Reduced layers that share an input are fused row by row, and keep views of the whole."""
        torch.manual_seed(0)
        layers = [nn.Linear(32, 48), nn.Linear(32, 16)]
        reduce_precision(in_a_layer(nn.ModuleList(layers)), "int8", CPU)
        inputs = torch.randn(5, 32)
        apart = torch.cat([layer(inputs) for layer in layers], dim=1)
        fused = FusedLinear(*layers)
        assert fused.sizes == [48, 16]
        assert torch.equal(fused(inputs), apart)
        assert torch.equal(torch.cat([layer(inputs) for layer in layers], dim=1), apart)

    def test_widened(self) -> None:
        """An MLP whose intermediate size suits no kernel gets neurons that add nothing."""
        torch.manual_seed(0)
        mlp: Any = nn.Module()
        mlp.gate_proj, mlp.up_proj = nn.Linear(32, 44), nn.Linear(32, 44)
        mlp.down_proj = nn.Linear(44, 32)
        inputs = torch.randn(5, 32)
        with torch.no_grad():
            exact = GatedMLP(mlp)(inputs)
            reduce_precision(in_a_layer(mlp), "int8", CPU)
            reduced = GatedMLP(mlp)(inputs)
        assert [*mlp.gate_proj.weight.shape, *mlp.up_proj.bias.shape] == [48, 32, 48]
        assert mlp.down_proj.weight.shape == (32, 48)
        assert not mlp.down_proj.weight.dequantize()[:, 44:].any()
        assert torch.cosine_similarity(exact, reduced).min() > 0.99


class TestRefused:
    def test_fp8_on_a_cpu(self) -> None:
        """FP8 without a GPU that has it stops the start, before anything is read."""
        with pytest.raises(ConfigurationError, match=r"'fp8'.*cpu.*8\.9.*int8 or full"):
            load(make_settings(model="/nowhere", precision="fp8", device="cpu"))

    def test_fp8_on_an_older_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The GPU's compute capability decides."""
        cuda, bfloat16 = torch.device("cuda"), torch.bfloat16
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
        with pytest.raises(ConfigurationError, match="compute capability"):
            require_precision("fp8", cuda, bfloat16)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        require_precision("fp8", cuda, bfloat16)
        with pytest.raises(ConfigurationError, match=r"PAGEVEC_DTYPE='float32'.*bfloat16"):
            require_precision("fp8", cuda, torch.float32)

    def test_int8_on_mps(self) -> None:
        """A device without int8 products is refused."""
        with pytest.raises(ConfigurationError, match=r"'int8'.*mps.*full"):
            require_precision("int8", torch.device("mps"), torch.float32)

    def test_without_torchao(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without torchao the error names the extra; full precision does not need it."""
        monkeypatch.setitem(sys.modules, "torchao", None)
        require_precision("full", CPU, torch.float32)
        with pytest.raises(ConfigurationError, match=r"pagevec\[precision\]"):
            require_precision("int8", CPU, torch.float32)

    def test_on_the_command_line(self) -> None:
        """A precision that this machine does not have ends `serve` with a sentence."""
        ended = pagevec("serve", "--device", "cpu", "--precision", "fp8", SERVICE_API_KEY="key")
        assert ended.returncode == 1
        assert "PAGEVEC_PRECISION='fp8' is not supported on cpu" in ended.stderr
        assert "Traceback" not in ended.stderr
