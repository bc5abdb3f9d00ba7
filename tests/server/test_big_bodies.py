"""Large bodies: refusals reach clients that are still sending; the worst page batch is served."""

import base64
import itertools
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from conftest import KEY, Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from processes import MIB, environment, serving

LIMIT = MIB
SIZE = 50 * MIB
PIECE = b" " * (64 * 1024)
NOTHING = b'{"input_type": "text", "inputs": []}'

# What is refused before a body is read to its end: method, path, key -> status, code.
REFUSALS = [
    ("POST", "/embeddings", KEY, 413, "body_too_large"),
    ("POST", "/npz/embeddings", KEY, 413, "body_too_large"),
    ("POST", "/embeddings", "wrong", 401, "unauthorized"),
    ("POST", "/nothing", KEY, 404, "not_found"),
    ("PUT", "/embeddings", KEY, 405, "method_not_allowed"),
]
refusals = pytest.mark.parametrize(("method", "path", "key", "status", "code"), REFUSALS)
framings = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@pytest.fixture(scope="module")
def small(embedder: LocalEmbedder) -> Iterator[Service]:
    """A service that takes bodies of a MiB."""
    with running(embedder, make_settings(max_body_bytes=LIMIT)) as started:
        yield started


class Connection:
    """A raw HTTP/1.1 client that sends and reads when it is told to."""

    def __init__(self, opened: socket.socket, chunked: bool) -> None:
        self._socket = opened
        self._chunked = chunked
        self._received = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_head(self, method: str, path: str, key: str, *more: str) -> None:
        framing = "Transfer-Encoding: chunked" if self._chunked else f"Content-Length: {SIZE}"
        lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {key}", framing]
        self.send("\r\n".join([*lines, *more, "", ""]).encode())

    def send_body(self, size: int) -> None:
        piece = f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n" if self._chunked else PIECE
        for _ in range(size // len(PIECE)):
            self.send(piece)

    def end_body(self) -> None:
        if self._chunked:
            self.send(b"0\r\n\r\n")

    def read_answer(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Read one complete answer: its status, headers and JSON body."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return int(first.split()[1]), headers, json.loads(body)

    def read_to_the_end(self) -> bytes:
        while part := self._socket.recv(65536):
            self._received += part
        return self._received

    def _receive(self) -> None:
        part = self._socket.recv(65536)
        assert part, f"closed after {self._received!r}"
        self._received += part


@contextmanager
def connection(service: Service, chunked: bool) -> Iterator[Connection]:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        yield Connection(opened, chunked)


@framings
@refusals
def test_refusal_arrives_before_the_body_is_sent(
    small: Service, method: str, path: str, key: str, status: int, code: str, chunked: bool
) -> None:
    """The whole answer can be read while most of the body is unsent, and the connection goes on.

    The client sends the rest after it has read: no reset, and its next request is answered.
    """
    with connection(small, chunked) as client:
        client.send_head(method, path, key)
        client.send_body(2 * LIMIT)
        answered, headers, content = client.read_answer()
        assert (answered, content["code"]) == (status, code)
        assert headers["x-request-id"]
        client.send_body(SIZE - 2 * LIMIT)
        client.end_body()
        client.send(b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
        assert client.read_answer()[::2] == (200, {"status": "alive"})


@framings
@refusals
def test_refusal_reaches_who_sends_everything_first(
    small: Service, method: str, path: str, key: str, status: int, code: str, chunked: bool
) -> None:
    """A client that reads only after it has sent 50 MiB, on a connection that it wants closed."""
    with connection(small, chunked) as client:
        client.send_head(method, path, key, "Connection: close")
        client.send_body(SIZE)
        client.end_body()
        head, _, body = client.read_to_the_end().partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["code"] == code


@framings
def test_refusal_while_another_thread_sends(small: Service, chunked: bool) -> None:
    """Sending and reading at the same time: both succeed, whichever ends first."""
    with connection(small, chunked) as client:
        client.send_head("POST", "/embeddings", KEY)

        def send() -> None:
            client.send_body(SIZE)
            client.end_body()

        sender = threading.Thread(target=send)
        sender.start()
        status, _, content = client.read_answer()
        sender.join(30)
        assert not sender.is_alive()
        assert (status, content["code"]) == (413, "body_too_large")
        assert f"{LIMIT:,}" in content["error"]


@framings
@pytest.mark.parametrize(("key", "status"), [(KEY, 413), ("wrong", 401)])
def test_refusal_reaches_httpx(small: Service, key: str, status: int, chunked: bool) -> None:
    """httpx, as morphik-core uses it (a connection for each call) and with a kept connection."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with httpx.Client(timeout=30, trust_env=False) as client:
        for _ in range(2):
            pieces = (PIECE for _ in range(SIZE // len(PIECE)))
            content = pieces if chunked else bytes(SIZE)
            answer = client.post(f"{small.url}/embeddings", content=content, headers=headers)
            assert answer.status_code == status
            assert set(answer.json()) == {"error", "code"}
        alive = client.post(f"{small.url}/", content=NOTHING, headers=headers)
        assert alive.status_code == (200 if key == KEY else 401)


@pytest.mark.parametrize(("key", "status"), [(KEY, 413), ("wrong", 401)])
def test_refusal_reaches_urllib(small: Service, key: str, status: int) -> None:
    """Python's http.client sends all before it reads, as `requests` does, and wants a close."""
    request = urllib.request.Request(
        f"{small.url}/embeddings", bytes(SIZE), {"Authorization": f"Bearer {key}"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        assert answer.code == status
        assert set(json.load(answer)) == {"error", "code"}


@pytest.mark.parametrize(("key", "status"), [(KEY, 413), ("wrong", 401)])
def test_expect_continue_gets_the_refusal_at_once(small: Service, key: str, status: int) -> None:
    """Who asks first (curl, for large bodies) is told the final status, no 100 in between."""
    with connection(small, chunked=False) as client:
        client.send_head("POST", "/embeddings", key, "Expect: 100-continue")
        assert client.read_answer()[0] == status  # a 100 would have no Content-Length
    assert httpx.get(f"{small.url}/health").status_code == 200


def test_expect_continue_within_the_limits(small: Service) -> None:
    """Who asks first and may send gets a 100, sends, and is answered."""
    with socket.create_connection(("127.0.0.1", int(small.url.rpartition(":")[2]))) as opened:
        opened.settimeout(30)
        opened.sendall(
            b"POST /embeddings HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\n"
            + f"Authorization: Bearer {KEY}\r\nContent-Length: {len(NOTHING)}\r\n\r\n".encode()
        )
        assert opened.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        opened.sendall(NOTHING)
        assert opened.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@framings
def test_clients_that_leave_halfway(small: Service, chunked: bool) -> None:
    """Clients that break off, within a body or after their refusal, do no harm."""
    for size in (0, LIMIT // 2, 3 * LIMIT):
        with connection(small, chunked) as client:
            client.send_head("POST", "/embeddings", KEY)
            client.send_body(size)
    with small.client() as client_:
        assert client_.post("/embeddings", content=NOTHING).json() == {"embeddings": []}


def noise_page(seed: int) -> bytes:
    """Base64 of an A4 page at 150 dpi that no compression makes smaller."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1754, 1240, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return base64.b64encode(file.getvalue())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of memory")
@pytest.mark.long
def test_the_largest_batch_of_pages(tmp_path: Path) -> None:
    """16 pages of noise, 139 MB of base64, are served within 3 GiB above the idle service."""
    pages = b'", "'.join(noise_page(seed) for seed in range(16))
    body = b'{"input_type": "image", "inputs": ["' + pages + b'"]}'
    assert len(body) > 139e6
    with (
        serving(tmp_path, environment()) as process,
        process.client() as client,
    ):
        idle = process.memory()
        answer = client.post("/npz/embeddings", content=body)
        peak = process.memory("VmHWM")
        assert answer.status_code == 200, answer.text
        with np.load(BytesIO(answer.content), allow_pickle=False) as arrays:
            assert int(arrays["count"]) == 16
            vectors = [arrays[f"emb_{index}"] for index in range(16)]
        assert all(one.shape == vectors[0].shape for one in vectors)
        assert all(np.isfinite(one).all() for one in vectors)
        assert len({one.tobytes() for one in vectors}) == 16
    print(f"idle {idle / MIB:.0f} MiB, peak {peak / MIB:.0f} MiB")
    assert peak - idle < 3 * 1024 * MIB


@pytest.mark.long
def test_the_largest_batch_over_a_slow_line(service: Service) -> None:
    """A refusal can be read, and 139 MB are served, at 1.6 MB a second: 87 s of sending."""
    pages = b'", "'.join(noise_page(seed) for seed in range(16))
    body = b'{"input_type": "image", "inputs": ["' + pages + b'"]}'

    def slowly() -> Iterator[bytes]:
        started = time.monotonic()
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]
            time.sleep(max(0.0, started + start / 1.6e6 - time.monotonic()))

    headers = {"Content-Length": str(len(body))}
    with service.client() as client:
        answer = client.post("/npz/embeddings", content=slowly(), headers=headers)
        assert answer.status_code == 200, answer.text
        refused = {**headers, "Authorization": "Bearer wrong"}
        answer = client.post(
            "/npz/embeddings",
            content=itertools.islice(slowly(), 300),
            headers={**refused, "Content-Length": str(300 * 100_000)},
        )
        assert answer.status_code == 401
