"""Other people's HTTP clients against the service, direct and through nginx."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import KEY, Service
from proxies import free_port, running_nginx
from server.calls import HELLO, image, images

pytestmark = pytest.mark.long

_SECONDS = 120
PAGES = json.dumps(images(*[image(620, 877, seed=number) for number in range(3)]))
BODIES = {"text": json.dumps(HELLO), "pages": PAGES}

JAVA = """
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;
import java.nio.file.*;

class Ask {
  public static void main(String[] given) throws Exception {
    HttpClient client = HttpClient.newHttpClient();  // asks for h2c, as every stock client does
    byte[] body = Files.readAllBytes(Path.of(given[1]));
    for (int round = 0; round < 3; round++) {
      HttpRequest.BodyPublisher publisher = round == 1
          ? BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(body))
          : BodyPublishers.ofByteArray(body);
      HttpRequest request = HttpRequest.newBuilder(URI.create(given[0]))
          .header("Authorization", "Bearer " + given[2]).POST(publisher).build();
      HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.body().length());
    }
  }
}
"""

NODE = """
const fs = require('fs');
(async () => {
  const [url, file, key] = process.argv.slice(2);
  const body = fs.readFileSync(file);
  const streamed = () => new ReadableStream({
    start(controller) {
      for (let at = 0; at < body.length; at += 1000) {
        controller.enqueue(body.subarray(at, at + 1000));
      }
      controller.close();
    },
  });
  for (const content of [body, streamed(), body]) {
    const headers = { Authorization: `Bearer ${key}` };
    const answer = await fetch(url, { method: 'POST', headers, body: content, duplex: 'half' });
    console.log(answer.status, (await answer.text()).length);
  }
})();
"""

NGINX = """
upstream pagevec {{ server 127.0.0.1:{upstream}; keepalive 8; keepalive_timeout 30s; }}
server {{
  listen 127.0.0.1:{port};
  client_max_body_size 300m;
  location / {{
    proxy_pass http://pagevec;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_read_timeout 600s;
    proxy_set_header Connection "{connection}";
    proxy_set_header Upgrade $http_upgrade;
  }}
}}
"""


@contextmanager
def nginx(service: Service, folder: Path, connection: str) -> Iterator[Service]:
    """Put an nginx of its own in front of the service."""
    port = free_port()
    upstream = int(service.url.rpartition(":")[2])
    with running_nginx(
        folder, port, NGINX.format(port=port, upstream=upstream, connection=connection)
    ):
        yield Service(f"http://127.0.0.1:{port}", service.key)


@pytest.fixture(scope="module", params=["direct", "nginx", "nginx that hands upgrades on"])
def address(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The service's address, or that of a proxy in front of it."""
    if request.param == "direct":
        yield service.url
        return
    connection = "" if request.param == "nginx" else "upgrade"
    with nginx(service, tmp_path_factory.mktemp("nginx"), connection) as proxied:
        yield proxied.url


@pytest.fixture(params=BODIES)
def body(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "body.json"
    file.write_text(BODIES[request.param])
    return file


def run(*command: str | Path) -> list[str]:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check(lines: list[str]) -> None:
    """Every answer was a 200, and all have one length."""
    assert len(lines) == 3
    assert all(line.startswith("200 ") for line in lines), lines
    assert len({len(line) for line in lines}) == 1


def needs(program: str) -> Callable[..., object]:
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"there is no {program}")


@needs("java")
def test_java(address: str, body: Path, tmp_path: Path) -> None:
    """The JDK's own client, which asks for h2c: with a length, and streamed."""
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    check(run("java", source, f"{address}/json/embeddings", body, KEY))


@needs("node")
def test_node(address: str, body: Path, tmp_path: Path) -> None:
    """Node's fetch: a body at once, and a stream of small pieces."""
    script = tmp_path / "ask.js"
    script.write_text(NODE)
    check(run("node", script, f"{address}/json/embeddings", body, KEY))


@needs("curl")
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--http1.0",),
        ("--http2",),
        ("-H", "Transfer-Encoding: chunked"),
        ("-H", "Expect: 100-continue"),
        ("-H", "Connection: close"),
    ],
    ids=["plain", "1.0", "h2c", "chunked", "expect", "close"],
)
def test_curl(address: str, body: Path, options: tuple[str, ...]) -> None:
    """Curl in the ways that it is used."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}\n"]
    sent = ["-H", f"Authorization: Bearer {KEY}", "--data-binary", f"@{body}"]
    check([run(*command, *options, *sent, f"{address}/json/embeddings")[0] for _ in range(3)])


def test_chunks_as_go_sends_them(address: str, body: Path) -> None:
    """Go's client streams what has no length in chunks of 32 KB, the header first, and goes on."""
    data = body.read_bytes()
    head = (
        "POST /json/embeddings HTTP/1.1\r\nHost: here\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Transfer-Encoding: chunked\r\nAuthorization: Bearer {KEY}\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 60) as opened:
        for _ in range(3):
            opened.sendall(head.encode())
            for start in range(0, len(data), 32 * 1024):
                piece = data[start : start + 32 * 1024]
                opened.sendall(b"%x\r\n" % len(piece))
                opened.sendall(piece + b"\r\n")
            opened.sendall(b"0\r\n\r\n")
            assert read_status(opened) == 200


def read_status(opened: socket.socket) -> int:
    """Read one answer to its end."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += opened.recv(65536)
    head, _, rest = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    length = int(fields["content-length"])
    while len(rest) < length:
        rest += opened.recv(65536)
    assert len(rest) == length
    return int(head.split()[1])
