"""Headers that one HTTP implementation honours and another ignores: no body is lost or run."""

import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from conftest import KEY, Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from server.calls import GETS, HELLO, error, texts, vectors

BODY = json.dumps(HELLO).encode()
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        yield opened


def exchange(service: Service, *sent: bytes) -> bytes:
    """Send everything, say that no more follows in a last request, and read to the end."""
    with connected(service) as opened:
        for part in sent:
            opened.sendall(part)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := opened.recv(65536):
                received += part
        return received


def post(*fields: str, body: bytes = BODY) -> bytes:
    lines = ["POST /embeddings HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", *fields]
    if not any(line.lower().startswith(("content-length", "transfer-enc")) for line in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAI"),
    "websocket": (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "unknown": ("Connection: keep-alive, upgrade", "Upgrade: TLS/1.0, IRC/6.9"),
}


@pytest.mark.parametrize("kind", UPGRADES)
def test_upgrades_are_answered_as_http(service: Service, kind: str) -> None:
    """A request that asks for another protocol is answered once, in this one, with its body."""
    closing = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(service, post(*UPGRADES[kind]), closing)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b'{"embeddings":[[[' in answer
    assert b"\r\nupgrade:" not in answer.lower()


@pytest.mark.parametrize("kind", UPGRADES)
def test_bodies_behind_an_upgrade_are_not_requests(service: Service, kind: str) -> None:
    """A body that looks like a request is a body: a 400, and no second answer."""
    answer = exchange(service, post(*UPGRADES[kind][:1], "Connection: close", body=GET * 3))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("kind", UPGRADES)
def test_an_upgrade_of_a_get(service: Service, kind: str) -> None:
    """GET with an upgrade, as clients without a body send it, is a GET."""
    fields = "\r\n".join(UPGRADES[kind])
    head = f"GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode()
    closing = GET.replace(b"Host", b"Connection: close\r\nHost")
    assert exchange(service, head, closing).count(b'{"status":"alive"}') == 2


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "DEFLATE": raw_deflate,
    "identity": bytes,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compressed_bodies(client: httpx.Client, encoding: str) -> None:
    """A body in each encoding that is read gives the answer of the plain body."""
    content = ENCODINGS[encoding](BODY)
    headers = {"Content-Encoding": encoding}
    answer = client.post("/embeddings", content=content, headers=headers)
    assert answer.json() == client.post("/embeddings", content=BODY).json()
    chunks = iter([content[:7], content[7:]])
    assert client.post("/embeddings", content=chunks, headers=headers).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "\x1b[31m"])
def test_other_encodings(client: httpx.Client, encoding: str) -> None:
    """An encoding that is not read is a 415 that names those that are."""
    answer = client.post("/embeddings", content=BODY, headers={"Content-Encoding": encoding})
    assert "gzip" in error(answer, 415, "unsupported_encoding")


@pytest.mark.parametrize(
    "content",
    [b"plain", BODY, gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"more", gzip.compress(b"{")],
    ids=["word", "not compressed", "cut", "longer", "no JSON"],
)
def test_damaged_compression(client: httpx.Client, content: bytes) -> None:
    """What is not a whole compressed stream is a 400."""
    answer = client.post("/embeddings", content=content, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert answer.json()["code"] in ("invalid_request", "invalid_json")


def test_decompressed_bytes_are_limited(embedder: LocalEmbedder) -> None:
    """The limit on a body counts what it is decompressed, however small it came."""
    with running(embedder, make_settings(max_body_bytes=20_000)) as small, small.client() as client:
        for size, status in ((20_000, 200), (20_001, 413), (10_000_000, 413)):
            content = gzip.compress(BODY.ljust(size))
            headers = {"Content-Encoding": "gzip"}
            answer = client.post("/embeddings", content=content, headers=headers)
            assert answer.status_code == status


@pytest.mark.parametrize("path", [*GETS, "/docs", "/openapi.json"])
def test_head(client: httpx.Client, path: str) -> None:
    """HEAD has the status and the length of GET, and no body; the connection goes on."""
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


def test_pipelined_requests(service: Service) -> None:
    """Requests that are sent ahead are answered in order, each with its own answer."""
    bodies = [json.dumps(texts(*["a"] * count)).encode() for count in (3, 1, 2)]
    closing = GET.replace(b"Host", b"Connection: close\r\nHost")
    answer = exchange(service, b"".join(post(body=body) for body in bodies) + closing)
    found = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert [len(one.get("embeddings", [])) for one in found] == [3, 1, 2, 0]


SMUGGLED = {
    "both lengths": ("Content-Length: 4", "Transfer-Encoding: chunked"),
    "two lengths": ("Content-Length: 4", "Content-Length: 5"),
    "list of lengths": ("Content-Length: 4, 5",),
    "signed length": ("Content-Length: +4",),
    "negative length": ("Content-Length: -4",),
    "spaced length": ("Content-Length : 4",),
    "hex length": ("Content-Length: 0x4",),
    "huge length": ("Content-Length: " + "9" * 400,),
    "other coding": ("Transfer-Encoding: identity",),
    "coding after": ("Transfer-Encoding: chunked, gzip",),
    "coding in vain": ("Transfer-Encoding: xchunked",),
    "no name": (": 4", "Content-Length: 4"),
    "control": ("X: a\x00b", "Content-Length: 4"),
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_no_request_hides_in_another(service: Service, kind: str) -> None:
    """Framing that two readers could understand differently is refused, with nothing after it."""
    body = b"0\r\n\r\n" + GET
    lines = ["POST /embeddings HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}"]
    head = "\r\n".join([*lines, *SMUGGLED[kind], "", ""]).encode("latin-1")
    answer = exchange(service, head + body)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 "))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]).keys() >= {"error", "code"}
    assert b"alive" not in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x00" * 100,
        b"GET /health HTTP/1.1\r\n\r\n",
    ],
    ids=["TLS", "HTTP/2", "HTTP/0.9", "word", "zeros", "no host"],
)
def test_what_is_not_http(service: Service, sent: bytes) -> None:
    """Something else than HTTP/1.1 is told so in the error form, and the connection ends."""
    answer = exchange(service, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert {"error", "code"} <= set(json.loads(body))


@pytest.mark.parametrize(
    "chunk", [b"xyz\r\n", b"-1\r\n", b"5\r\nhelloworld\r\n", b"1;" + b"a" * 50_000]
)
def test_damaged_chunks(service: Service, chunk: bytes) -> None:
    """A body whose chunks cannot be read is refused; nothing after them is taken for a request."""
    answer = exchange(service, post("Transfer-Encoding: chunked", body=chunk + GET))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"alive" not in answer


def test_tiny_chunks(service: Service) -> None:
    """A body of one byte a chunk is read; other callers do not notice."""
    body = BODY.ljust(30_000)
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with connected(service) as opened, service.client() as client:
        opened.sendall(post("Transfer-Encoding: chunked", "Connection: close", body=chunks))
        assert client.get("/health").elapsed.total_seconds() < 1
        assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")
    with service.client() as client:
        assert len(vectors(client.post("/embeddings", json=HELLO))) == 1
