"""Containers that cannot start: what the operator and the waiting caller see."""

import threading
from pathlib import Path

import httpx
import pytest
import torch
from control_plane import ControlPlane, serving
from modal_cli import MODULE, modal
from modal_proto import api_pb2 as api

from pagevec.deploy.modal.container import Container
from pagevec.errors import ConfigurationError


def failure_of(plane: ControlPlane) -> str:
    """Return the exception that the started container reports to Modal."""
    plane.containers.wait()
    (result,) = plane.task_results
    assert result.status == api.GenericResult.GENERIC_STATUS_FAILURE
    return str(result.exception)


def test_an_empty_volume(tmp_path: Path) -> None:
    """A container without weights names the volume, the model, and the command that fills it.

    The caller only gets Modal's 303, which has no explanation.
    """
    with serving(ControlPlane(tmp_path), gateway_seconds=0.5) as plane:
        assert modal(plane, "deploy", *MODULE).returncode == 0
        plane.containers.mounts["/weights"] = tmp_path / "empty"
        answer = httpx.post(f"{plane.gateway}/embeddings", json={}, trust_env=False)
        assert answer.status_code == 303
        said = failure_of(plane)
        assert "the volume 'pagevec-weights' does not hold tsystems/colqwen2.5" in said
        assert "run `modal run -m pagevec.deploy.modal.app::download`" in said
        assert "CheckpointError" in plane.containers.printed()


@pytest.fixture
def device() -> str:
    """The device that the snapshot is made for."""
    return "cuda"


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, device: str) -> Container:
    """A container in the state that a snapshot keeps, prepared on a machine without CUDA."""
    for name, value in {
        "PAGEVEC_MODEL": "bundled",
        "PAGEVEC_DEVICE": device,
        "PAGEVEC_LOG_LEVEL": "warning",
        "SERVICE_API_KEY": "when-it-was-taken",
    }.items():
        monkeypatch.setenv(name, value)
    threads = threading.active_count()
    container = Container()
    container.prepare("pagevec-weights", gpu_snapshot=False)
    assert threading.active_count() == threads, "a snapshot must not hold threads"
    return container


def test_a_snapshot_holds_weights_and_nothing_else(prepared: Container) -> None:
    """The weights are on the CPU, in the dtype of the GPU; CUDA was not initialized."""
    weights = next(prepared._loaded.model.parameters())
    assert (weights.device.type, weights.dtype) == ("cpu", torch.bfloat16)
    assert not torch.cuda.is_initialized()
    assert not hasattr(prepared, "embedder")


def test_a_failing_start_says_what_to_do(prepared: Container) -> None:
    """On a machine without the device the error says what to change."""
    with pytest.raises(ConfigurationError, match="0 CUDA devices: name another one"):
        prepared.start()


@pytest.mark.parametrize("device", ["cpu"])
def test_keys_are_read_after_the_snapshot(
    prepared: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that starts from an old snapshot accepts today's keys and not yesterday's."""
    monkeypatch.setenv("SERVICE_API_KEY", "today")
    prepared.start()
    statuses = {key: ask(prepared, key) for key in ("today", "when-it-was-taken")}
    prepared.stop()
    assert statuses == {"today": 200, "when-it-was-taken": 401}


def test_without_a_key_nothing_is_served(
    prepared: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key in the secret the start fails: no service without keys is ever open."""
    monkeypatch.setenv("SERVICE_API_KEY", "")
    with pytest.raises(ConfigurationError, match="SERVICE_API_KEY is not set"):
        prepared.start()


def ask(container: Container, key: str) -> int:
    from starlette.testclient import TestClient

    body = {"input_type": "text", "inputs": ["hello"]}
    headers = {"Authorization": f"Bearer {key}"}
    return TestClient(container.app).post("/embeddings", json=body, headers=headers).status_code
