"""Connections that send nothing, little or endlessly, or never read: others do not notice."""

import contextlib
import json
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import KEY, Service, make_settings
from hostile.target import attacked
from pagevec.engine.embedder import LocalEmbedder
from pagevec.server.app import create_app
from pagevec.server.guard import Deadlines
from pagevec.server.run import address_of, listen, server_for
from processes import MIB, Process, environment, serving

pytestmark = [pytest.mark.long, pytest.mark.alone]

SILENT, SLOW, DEAF = 2000, 200, 50
BUDGET = 512 * MIB
ESTABLISHED = "01"
GET = b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n"

# Short enough to watch them pass.
HASTY = Deadlines(header_seconds=0.8, idle_seconds=1.2, window_seconds=1.0, bytes_per_second=1000)


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def hasty(embedder: LocalEmbedder) -> Iterator[Service]:
    """Serve with short deadlines."""
    settings = make_settings()
    listener = listen(settings)
    server = server_for(create_app(settings, embedder), settings, HASTY)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Service(address_of(listener))
    finally:
        server.should_exit = True
        thread.join()


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), 30)


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def post(length: int, *, key: str = KEY) -> bytes:
    lines = ["POST /json/embeddings HTTP/1.1", "Host: x", f"Authorization: Bearer {key}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["code"]


def test_a_header_has_a_deadline(embedder: LocalEmbedder) -> None:
    """A header that comes byte by byte is a 408; a connection that says nothing is closed."""
    with hasty(embedder) as service, connect(service) as slow, connect(service) as silent:
        started = time.monotonic()
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        while not select.select([slow], [], [], 0.1)[0]:
            slow.sendall(b"a")
            assert time.monotonic() - started < 5
        assert refusal(read_to_the_end(slow)) == (408, "request_timeout")
        assert read_to_the_end(silent) == b""


def test_a_body_has_a_least_rate(embedder: LocalEmbedder) -> None:
    """A body that drips is a 408; one that comes in time, in pieces with pauses, is answered."""
    body = b'{"input_type": "text", "inputs": ["a"]' + b" " * 6000 + b"}"
    with hasty(embedder) as service, connect(service) as slow:
        started = time.monotonic()
        slow.sendall(post(10_000))
        while not select.select([slow], [], [], 0.1)[0]:
            slow.sendall(b" ")
            assert time.monotonic() - started < 5
        assert refusal(read_to_the_end(slow)) == (408, "request_timeout")
        with connect(service) as fair:
            fair.sendall(post(len(body)))
            for start in range(0, len(body), 600):
                fair.sendall(body[start : start + 600])
                time.sleep(0.2)
            assert fair.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_refused_sender_has_a_least_rate_too(embedder: LocalEmbedder) -> None:
    """Who is refused and goes on dripping its body has its answer, and loses the connection."""
    with hasty(embedder) as service, connect(service) as slow:
        started = time.monotonic()
        slow.sendall(post(10_000, key="wrong"))
        assert slow.recv(65536).startswith(b"HTTP/1.1 401 ")
        with pytest.raises(ConnectionError):
            while time.monotonic() - started < 5:
                slow.sendall(b" ")
                time.sleep(0.1)
            pytest.fail("the connection is still there")


def test_who_does_not_read_is_cut_off(embedder: LocalEmbedder) -> None:
    """An answer that is not read is given up: the log says why, and nothing of it is kept."""
    body = json.dumps({"input_type": "text", "inputs": ["many words " * 100] * 8}).encode()
    with hasty(embedder) as service, socket.socket() as deaf, service.client() as client:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
        deaf.sendall(post(len(body)) + body)
        line = 'pagevec_requests_total{method="POST",path="/json/embeddings",status="499"} 1.0'
        end = time.monotonic() + 60
        while line not in client.get("/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_idle_connections_are_closed(embedder: LocalEmbedder) -> None:
    """A connection is kept for the next request, but not for ever."""
    with hasty(embedder) as service, connect(service) as kept:
        for pause in (0.4, 0.4, 0):
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(pause)
        started = time.monotonic()
        assert read_to_the_end(kept) == b""
        assert 0.8 < time.monotonic() - started < 4


ENDLESS = {
    "fields": b"X-Field: value\r\n",
    "one field": b"a" * 64,
    "empty fields": b"a:\r\n",
    "folded": b" folded\r\n",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_headers(service: Service, kind: str) -> None:
    """A header without an end is a 431 after 32 KB, whatever it is made of."""
    with connect(service) as endless:
        endless.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(16):
                endless.sendall(ENDLESS[kind] * (64 * 1024 // len(ENDLESS[kind])))
        status, code = refusal(read_to_the_end(endless))
        assert (status, code) == (431, "headers_too_large")


def test_too_many_fields(service: Service) -> None:
    """100 fields pass; more are a 431, however short."""
    for count, status in ((100, 200), (101, 431)):
        fields = b"".join(b"f%d: x\r\n" % number for number in range(count - 1))
        with connect(service) as one:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
            assert one.recv(65536).startswith(b"HTTP/1.1 %d " % status)


def lower_descriptors(process: Process, most: int) -> None:
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (most, most))
    time.sleep(1.5)  # the service looks at its limit once a second


def test_more_connections_than_descriptors(tmp_path: Path) -> None:
    """At the limit on descriptors waiting connections give way, with a line in the log."""
    with attacked(tmp_path) as target:
        lower_descriptors(target.process, 256)
        silent = [connect(target.process) for _ in range(400)]
        for _ in range(5):
            assert target.time_query() < 2
        target.check_alive(BUDGET)
        assert "closed for a new one" in target.process.log.read_text()
        for one in silent:
            one.close()


def test_busy_connections_are_not_closed_for_new_ones(tmp_path: Path) -> None:
    """When all connections have a request that is not finished, a new one is told so: 503."""
    with serving(tmp_path, environment()) as process, process.client() as client:
        lower_descriptors(process, 256)
        busy = []
        for _ in range(170):
            one = connect(process)
            one.sendall(post(1000))
            busy.append(one)
        answer = read_to_the_end(busy[-1])
        assert refusal(answer) == (503, "too_many_connections")
        assert b"retry-after" in answer.lower()
        for one in busy:
            one.close()
        time.sleep(0.5)
        assert client.get("/health").status_code == 200


def established(process: Process) -> int:
    """Count the service's connections, in the kernel's own table."""
    port = f":{process.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == ESTABLISHED for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's table of connections")
def test_thousands_of_useless_connections(tmp_path: Path) -> None:
    """2,000 silent, 200 slow and 50 deaf connections: others are served; none is left in 60 s."""
    query = json.dumps({"input_type": "text", "inputs": ["many words"] * 8}).encode()
    with attacked(tmp_path) as target:
        silent = [connect(target.process) for _ in range(SILENT)]
        slow = [connect(target.process) for _ in range(SLOW)]
        deaf = []
        for number in range(DEAF):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", target.process.port))
            one.sendall(GET * 20 if number % 2 else post(len(query)) + query)
            deaf.append(one)
        started = time.monotonic()
        assert established(target.process) > SILENT
        drops = post(100_000) + b" " * 1000
        waits = []
        for second in range(58):
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(drops[second : second + 1])
            waits.append(target.time_query())
            time.sleep(max(0.0, started + second + 1 - time.monotonic()))
        time.sleep(max(0.0, started + 60 - time.monotonic()))
        assert max(waits) < 2
        assert established(target.process) <= 2  # the watcher's
        target.check_alive(BUDGET)
        for one in (*silent, *slow, *deaf):
            one.close()
