"""Containers that cannot start: what the operator and the waiting caller see."""

import threading
import time

import pytest
import torch
from starlette.testclient import TestClient

from pagevec.deploy.modal.container import Container
from pagevec.errors import ConfigurationError


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
    container = Container("pagevec-weights")
    container.prepare(gpu_snapshot=False)
    assert threading.active_count() == threads, "a snapshot must not hold threads"
    return container


def test_a_snapshot_holds_weights_and_nothing_else(prepared: Container) -> None:
    """The weights are on the CPU, in the dtype of the GPU; CUDA was not initialized."""
    assert prepared._loaded is not None
    weights = next(prepared._loaded.model.parameters())
    assert (weights.device.type, weights.dtype) == ("cpu", torch.bfloat16)
    assert not torch.cuda.is_initialized()
    assert not hasattr(prepared, "embedder")


@pytest.mark.parametrize("device", ["cpu"])
def test_keys_are_read_after_the_snapshot(
    prepared: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that starts from an old snapshot accepts today's keys and not yesterday's."""
    monkeypatch.setenv("SERVICE_API_KEY", "today")
    prepared.start(never, never)
    statuses = {key: ask(prepared, key) for key in ("today", "when-it-was-taken")}
    prepared.stop()
    assert statuses == {"today": 200, "when-it-was-taken": 401}


def test_without_a_key_nothing_is_served(
    prepared: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key in the secret the start fails: no service without keys is ever open."""
    monkeypatch.setenv("SERVICE_API_KEY", "")
    with pytest.raises(ConfigurationError, match="SERVICE_API_KEY is not set"):
        prepared.start(never, never)


@pytest.mark.parametrize("device", ["cpu"])
def test_a_container_stops_while_it_waits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is scaled down before the weights are there ends at once."""
    for name, value in {
        "PAGEVEC_MODEL": "nobody/has-this",
        "PAGEVEC_DEVICE": device,
        "SERVICE_API_KEY": "key",
    }.items():
        monkeypatch.setenv(name, value)
    asked, end = threading.Event(), threading.Event()

    def fetch() -> None:
        asked.set()
        end.wait(60)

    container = Container("pagevec-weights")
    container.prepare(gpu_snapshot=False)
    container.start(fetch, end.is_set)
    assert asked.wait(10)
    assert ask(container, "key") == 503
    started = time.monotonic()
    container.stop()
    assert time.monotonic() - started < 1
    end.set()


def never() -> None:
    raise AssertionError("the weights are there")


def ask(container: Container, key: str) -> int:
    body = {"input_type": "text", "inputs": ["hello"]}
    headers = {"Authorization": f"Bearer {key}"}
    return TestClient(container.app).post("/embeddings", json=body, headers=headers).status_code
