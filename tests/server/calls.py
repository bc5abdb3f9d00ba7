"""What the tests of the service send, and how they read its answers."""

import base64
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np

from conftest import png

PATHS = {
    "/embeddings": "json",
    "/": "json",
    "/json/embeddings": "json",
    "/npz/embeddings": "npz",
}
GETS = ("/health", "/ready", "/info", "/metrics")
TYPES = {"json": "application/json", "npz": "application/x-npz"}
HELLO = {"input_type": "text", "inputs": ["hello"]}
NOTHING: dict[str, Any] = {"input_type": "text", "inputs": []}


def image(width: int = 32, height: int = 32, seed: int = 0) -> str:
    return base64.b64encode(png(width, height, seed)).decode()


def images(*inputs: str) -> dict[str, Any]:
    return {"input_type": "image", "inputs": list(inputs)}


def texts(*inputs: str) -> dict[str, Any]:
    return {"input_type": "text", "inputs": list(inputs)}


def vectors(answer: httpx.Response) -> list[np.ndarray[Any, Any]]:
    """The multi-vectors of a JSON answer."""
    assert answer.status_code == 200, answer.text
    return [np.array(rows, np.float32) for rows in answer.json()["embeddings"]]


def arrays(answer: httpx.Response) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an npz answer, read without pickle."""
    assert answer.status_code == 200, answer.text
    with np.load(BytesIO(answer.content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def error(answer: httpx.Response, status: int, code: str, index: int | None = None) -> str:
    """Check that `answer` is this error, in the contract's form and nothing else; its sentence."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    expected = {"error", "code"} if index is None else {"error", "code", "index"}
    assert set(content) == expected
    assert content["code"] == code
    assert content.get("index") == index
    assert len(content["error"]) > 10
    assert answer.headers["x-request-id"]
    assert "total;dur=" in answer.headers["server-timing"]
    sentence: str = content["error"]
    return sentence


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
