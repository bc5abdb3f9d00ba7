"""Which device runs the model, and what a user is told of one that cannot.

Torch's answers are those of a build with CUDA, replaced where torch asks the driver.
"""

import logging
import os
from pathlib import Path

import pytest
import torch

from conftest import make_settings, pagevec
from pagevec.engine.models.devices import (
    choose_dtype,
    compute_capability,
    find_device,
    require_dtype,
)
from pagevec.engine.models.loader import load, on_device, read
from pagevec.errors import ConfigurationError

OLD = "The NVIDIA driver on your system is too old (found version 12020).\nPlease update it."
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a machine with one GPU of NVIDIA's."""
    (tmp_path / "dev").mkdir()
    for node in ("nvidiactl", "nvidia0", "null"):
        (tmp_path / "dev" / node).touch()
    return tmp_path


@pytest.fixture(autouse=True)
def driver_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch with CUDA, over a driver that is too old for it."""

    def refuse() -> None:
        raise RuntimeError(OLD)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # NVML counts it all the same
    monkeypatch.setattr(torch.cuda, "init", refuse)


@pytest.fixture
def driver_works(monkeypatch: pytest.MonkeyPatch, driver_too_old: None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


class TestAuto:
    def test_a_driver_that_is_too_old(self, root: Path) -> None:
        """A GPU that torch cannot use stops the start, with torch's reason and what to do."""
        with pytest.raises(ConfigurationError) as refused:
            find_device(make_settings(model="auto"), root)
        message = refused.value.message
        assert message.startswith("PAGEVEC_DEVICE='auto': this machine has an NVIDIA GPU")
        assert "update its driver" in message
        assert "docs/hosting.md" in message
        assert "set PAGEVEC_DEVICE=cpu" in message
        assert message.endswith(" ".join(OLD.split()))

    def test_the_bundled_model_by_name(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Who names the small model gets it, on the CPU, and the reason in the log."""
        with caplog.at_level(logging.WARNING, "pagevec"):
            assert find_device(make_settings(model="bundled"), root) == CPU
        assert "runs on the CPU" in caplog.text
        assert "too old (found version 12020)" in caplog.text

    @pytest.mark.parametrize(
        "error",
        [torch.cuda.DeferredCudaCallError("CUDA call failed lazily"), OSError("libcuda.so.1")],
    )
    def test_whatever_torch_raises(
        self, error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The reason is told, of whichever kind the error is."""

        def fail() -> None:
            raise error

        monkeypatch.setattr(torch.cuda, "init", fail)
        with pytest.raises(ConfigurationError) as refused:
            find_device(make_settings(model="auto"), root)
        assert refused.value.message.endswith(f"torch says: {error}")

    @pytest.mark.parametrize("nodes", [("dev/nvidia3",), ("dev/nvidiactl",)])
    def test_any_node_counts(self, nodes: tuple[str, ...], tmp_path: Path) -> None:
        """A container may have the node of one GPU, or of none but the driver's own."""
        (tmp_path / "dev").mkdir()
        for node in nodes:
            (tmp_path / node).touch()
        with pytest.raises(ConfigurationError, match="has an NVIDIA GPU"):
            find_device(make_settings(model="auto"), tmp_path)

    def test_wsl(self, tmp_path: Path) -> None:
        """WSL has one node for GPUs of all makers: with NVIDIA's library it is one of theirs."""
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / "dxg").touch()
        assert find_device(make_settings(model="auto"), tmp_path) == CPU
        library = tmp_path / "usr" / "lib" / "wsl" / "lib" / "libcuda.so.1"
        library.parent.mkdir(parents=True)
        library.touch()
        with pytest.raises(ConfigurationError, match="update its driver"):
            find_device(make_settings(model="auto"), tmp_path)

    @pytest.mark.parametrize("hidden", ["", "-1", "none", "NoDevFiles"])
    def test_a_gpu_that_the_user_hides(
        self, hidden: str, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who hides all GPUs has chosen the CPU."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert find_device(make_settings(model="auto"), root) == CPU

    @pytest.mark.parametrize("visible", ["0", "7", "GPU-1234", "MIG-1234"])
    def test_a_gpu_that_the_user_names(
        self, visible: str, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A GPU or a slice of one that is named and cannot be used is an error that cites it."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(ConfigurationError, match=f"CUDA_VISIBLE_DEVICES='{visible}'"):
            find_device(make_settings(model="auto"), root)

    def test_a_node_that_may_not_be_opened(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where permissions are missing, the driver is not to blame."""
        monkeypatch.setattr(os, "access", lambda node, mode: "nvidia0" not in str(node))
        with pytest.raises(ConfigurationError, match=r"may not open \S*/dev/nvidia0: ") as refused:
            find_device(make_settings(model="auto"), root)
        assert "driver (" not in refused.value.message

    def test_no_gpu_at_all(self, tmp_path: Path) -> None:
        """On a machine without a GPU the CPU is what `auto` means, whatever torch was built for."""
        assert find_device(make_settings(model="auto"), tmp_path) == CPU

    def test_torch_without_cuda(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who installs torch without CUDA has chosen the CPU, beside a GPU too."""
        monkeypatch.setattr(torch.version, "cuda", None)
        assert find_device(make_settings(model="auto"), root) == CPU

    def test_a_gpu_that_works(self, root: Path, driver_works: None) -> None:
        """CUDA is what `auto` prefers."""
        assert find_device(make_settings(model="auto"), root) == CUDA


class TestNamed:
    @pytest.mark.parametrize("model", ["auto", "bundled"])
    def test_a_driver_that_is_too_old(self, model: str, root: Path) -> None:
        """A GPU that is asked for by name is never replaced, and NVML's count proves nothing."""
        with pytest.raises(ConfigurationError, match=r"^PAGEVEC_DEVICE='cuda'.*too old"):
            find_device(make_settings(model=model, device="cuda"), root)

    def test_no_gpu_at_all(self, tmp_path: Path) -> None:
        """The error says that there is none to be seen, and how a container gets one."""
        with pytest.raises(ConfigurationError, match=r"no NVIDIA GPU is to be seen.*--gpus all"):
            find_device(make_settings(device="cuda"), tmp_path)

    def test_a_gpu_that_is_hidden(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what hides it."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES='' hides every GPU"):
            find_device(make_settings(device="cuda"), root)

    def test_torch_without_cuda(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says that torch is to be replaced, not the driver."""
        monkeypatch.setattr(torch.version, "cuda", None)
        with pytest.raises(ConfigurationError, match="a build without CUDA: install one"):
            find_device(make_settings(device="cuda"), root)

    def test_one_gpu_too_many(self, root: Path, driver_works: None) -> None:
        """A second GPU where there is one is refused with the count."""
        assert find_device(make_settings(device="cuda:0"), root) == torch.device("cuda:0")
        with pytest.raises(ConfigurationError, match="'cuda:1': this machine has 1 CUDA devices"):
            find_device(make_settings(device="cuda:1"), root)

    def test_the_cpu(self, root: Path) -> None:
        """The CPU can always be had, and nothing is said of the GPU."""
        assert find_device(make_settings(device="cpu"), root) == CPU


class TestDtype:
    @pytest.fixture
    def capability(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: request.param)

    @pytest.mark.parametrize(
        ("capability", "dtype"),
        [
            ((7, 5), torch.float16),
            ((8, 0), torch.bfloat16),
            ((8, 6), torch.bfloat16),
            ((12, 0), torch.bfloat16),
        ],
        indirect=["capability"],
    )
    def test_auto_on_a_gpu(self, capability: None, dtype: torch.dtype) -> None:
        """`auto` is float16 on GPUs before Ampere, bfloat16 from there on."""
        assert choose_dtype("auto", CUDA, compute_capability(CUDA)) == dtype
        require_dtype(dtype, CUDA)

    def test_auto_elsewhere(self) -> None:
        """On a CPU it is float32; for a GPU that may not be asked yet, that of a recent one."""
        assert choose_dtype("auto", CPU, compute_capability(CPU)) == torch.float32
        assert choose_dtype("auto", CUDA, None) == torch.bfloat16
        assert choose_dtype("float16", CUDA, None) == torch.float16

    @pytest.mark.parametrize("capability", [(7, 5)], indirect=True)
    def test_bfloat16_on_an_older_gpu(self, capability: None, driver_works: None) -> None:
        """Named, it is refused before anything is read, and again when a snapshot meets its GPU."""
        refused = r"PAGEVEC_DTYPE='bfloat16'.*8\.0 or above.*has 7\.5; use float16"
        with pytest.raises(ConfigurationError, match=refused):
            load(make_settings(model="/nowhere", device="cuda", dtype="bfloat16"))
        with pytest.raises(ConfigurationError, match=refused):
            on_device(read(make_settings(device="cuda")), CUDA)


def test_on_the_command_line() -> None:
    """`serve` on a GPU that is not there ends with a sentence."""
    ended = pagevec("serve", "--device", "cuda", SERVICE_API_KEY="key", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 1
    assert "--device cuda: " in ended.stderr
    assert "torch says: " in ended.stderr
    assert "Traceback" not in ended.stderr
