"""nginx and Caddy in front of a real service, configured by the very blocks of docs/hosting.md."""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from conftest import Service, pagevec, png
from documents import DOCS
from pagevec.client import Client
from processes import Process, environment, serving
from proxies import free_port, running_caddy, running_nginx

pytestmark = pytest.mark.long

NAME = "pages.example.org"
CERTIFICATES = f"/etc/letsencrypt/live/{NAME}"


@dataclass(frozen=True)
class Proxied(Service):
    """A service behind a proxy; `ca` is the file of the authority that signed its certificate."""

    ca: Path = Path()
    process: Process | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def block(proxy: str, *replaced: tuple[str, str]) -> str:
    """Return the documented configuration of `proxy`, with names and places of this test."""
    text = (DOCS / "hosting.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"<!-- {proxy} -->\n```\w*\n(.*?)```", text, re.S)
    for told, here in replaced:
        assert told in found
        found = found.replace(told, here)
    return str(found)


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    identity = authority.issue_cert("127.0.0.1", NAME)
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    identity.cert_chain_pems[0].write_to_path(chain)
    identity.private_key_pem.write_to_path(key)
    variables = environment(PAGEVEC_LOG_FORMAT="json", PAGEVEC_MAX_BODY_BYTES=str(2**20))
    with serving(folder, variables) as process:
        service = ("127.0.0.1:8765", f"127.0.0.1:{process.port}")
        if request.param == "nginx":
            listens = ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
            places = [listens, ("listen [::]:443 ssl;", ""), (CERTIFICATES, str(folder))]
            proxy = running_nginx(folder, port, block("nginx", service, *places))
        else:
            site = f"https://{NAME}:{port}, https://127.0.0.1:{port} {{\ntls {chain} {key}\n"
            proxy = running_caddy(folder, port, block("caddy", service, (f"{NAME} {{", site)))
        with proxy:
            yield Proxied(f"https://127.0.0.1:{port}", process.key, folder / "ca.pem", process)


def test_requests_pass(proxied: Proxied) -> None:
    """Pages and texts are embedded through the proxy, and `pagevec check` passes."""
    with Client(proxied.url, proxied.key, ca=proxied.ca) as client:
        [page] = client.embed_images([png(620, 877)])
        assert page.shape[1] == 128
        assert client.embed_query("fares").shape[1] == 128
    done = pagevec("check", proxied.url, "--ca", proxied.ca, SERVICE_API_KEY=proxied.key)
    assert (done.returncode, "FAIL" in done.stdout) == (0, False), done.stdout


@pytest.mark.parametrize(
    "target",
    [
        "/metrics",
        "/metrics?x",
        "//metrics",
        "/./metrics",
        "/x/../metrics",
        "/%6Detrics",
        "/%2e/metrics",
        "/metrics/",
        "/metrics;x",
        "/metrics%00",
        "/METRICS",
        f"https://{NAME}/metrics",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_metrics_stay_in(proxied: Proxied, target: str, method: str) -> None:
    """No spelling of the path leads to /metrics from outside; the service itself answers it."""
    context = ssl.create_default_context(cafile=str(proxied.ca))
    with (
        socket.create_connection(("127.0.0.1", proxied.port), 20) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        head = f"{method} {target} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.match(rb"HTTP/1.1 40[04] ", answer), answer
    assert b"pagevec_" not in answer
    assert proxied.process is not None
    assert "pagevec_requests_total" in httpx.get(f"{proxied.process.url}/metrics").text


def test_a_body_that_is_too_large(proxied: Proxied) -> None:
    """The service's own refusal reaches a caller who is still sending; the caller halves then."""
    with httpx.Client(verify=ssl.create_default_context(cafile=str(proxied.ca))) as client:
        answer = client.post(
            f"{proxied.url}/embeddings",
            headers={"Authorization": f"Bearer {proxied.key}"},
            content=b" " * (16 * 2**20),
        )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_the_log_has_the_caller(proxied: Proxied) -> None:
    """A line has the address of who asked the proxy, whatever the caller writes into the header."""
    transport = httpx.HTTPTransport(
        local_address="127.0.0.9", verify=ssl.create_default_context(cafile=str(proxied.ca))
    )
    with httpx.Client(transport=transport) as client:
        answer = client.get(f"{proxied.url}/info", headers={"X-Forwarded-For": "203.0.113.7"})
    assert proxied.process is not None
    line = proxied.process.line(answer.headers["X-Request-ID"])
    assert (line["path"], line["client"]) == ("/info", "127.0.0.9")
