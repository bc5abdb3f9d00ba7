"""Callers who leave."""

import socket
import threading
import time
from typing import Any

from conftest import KEY, Service, make_settings, running
from pagevec.engine.backends import backend_of
from pagevec.engine.backends.base import Backend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import load

BODY = b'{"input_type": "text", "inputs": ["a caller who will not wait"]}'


def ask_and_leave(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            + KEY.encode()
            + b"\r\nContent-Length: "
            + str(len(BODY)).encode()
            + b"\r\n\r\n"
            + BODY
        )
        time.sleep(0.3)


def test_their_work_is_not_done() -> None:
    """Requests whose caller hung up leave the queue; only one of five is ever computed."""
    gate, passes = threading.Event(), []
    settings = make_settings(model_threads=1)

    def load_with_gate() -> Backend[Any]:
        model = load(settings)

        def hold(module: Any, positional: Any) -> None:
            if ready.is_set():
                passes.append(1)
                gate.wait(30)

        model.model.get_input_embeddings().register_forward_pre_hook(hold)
        return backend_of(model)

    ready = threading.Event()
    embedder = LocalEmbedder.of(settings, load_with_gate)
    embedder.wait_until_ready()
    ready.set()
    with running(embedder, settings) as service:
        for _ in range(5):
            ask_and_leave(service)
        while embedder.health().queued_inputs:  # until the last one's leaving was seen
            time.sleep(0.05)
        gate.set()
        assert len(passes) == 1
        with service.client() as http:
            answer = http.post("/embeddings", json={"input_type": "text", "inputs": ["still here"]})
        assert answer.status_code == 200
        assert len(passes) == 2
        assert "pagevec_requests_total" in http_text(service, "/metrics")
    embedder.close()


def http_text(service: Service, path: str) -> str:
    with service.client() as http:
        return http.get(path).text
