"""Whom the client trusts for https: the public authorities, or a company's own."""

import asyncio
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvicorn

from conftest import KEY, make_settings, pagevec
from pagevec.client import Client
from pagevec.client.faults import Misaddressed
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError
from pagevec.morphik import ColpaliApiEmbeddingModel
from pagevec.server.app import create_app
from pagevec.server.run import address_of, listen


@dataclass(frozen=True)
class Company:
    """A service behind https, and the authority that signed its certificate.

    Attributes:
        url: its address.
        ca: file of the authority's certificate.
    """

    url: str
    ca: Path


@pytest.fixture(scope="module")
def company(embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    identity = authority.issue_cert("127.0.0.1")
    identity.private_key_and_cert_chain_pem.write_to_path(folder / "service.pem")
    settings = make_settings()
    # A plain uvicorn stands for the proxy that speaks TLS in front of the service.
    app, certificate = create_app(settings, embedder), folder / "service.pem"
    listener = listen(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ssl_certfile=certificate))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Company(address_of(listener).replace("http:", "https:"), folder / "ca.pem")
    # Without waiting half a minute for clients that keep their connections and answer no goodbye.
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture(params=["file", "name", "context", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def trusting(
    request: pytest.FixtureRequest,
    company: Company,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> dict[str, Any]:
    """Trust the company in each way; the client's options."""
    context = ssl.create_default_context(cafile=company.ca)
    options = {"file": company.ca, "name": str(company.ca), "context": context}
    if request.param in options:
        return {"ca": options[request.param]}
    if request.param == "SSL_CERT_FILE":
        monkeypatch.setenv("SSL_CERT_FILE", str(company.ca))
        return {}
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(company.ca)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes(company.ca.read_bytes())
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    return {}


def test_a_company_is_trusted(
    either_client: Any, company: Company, trusting: dict[str, Any]
) -> None:
    """Its authority may be a file, a context, or what the environment names."""
    client = either_client(company.url, key=KEY, **trusting)
    assert client.embed_query("night route").shape[1] == 128


def test_the_drop_in_trusts_it(company: Company, trusting: dict[str, Any]) -> None:
    """So may that of morphik-core's drop-in."""
    model = ColpaliApiEmbeddingModel(company.url, KEY, **trusting)
    assert asyncio.run(model.embed_for_query("night route")).shape[1] == 128


def test_a_stranger_is_not(either_client: Any, company: Company) -> None:
    """Else the call fails at once, and says how to trust it."""
    started = time.monotonic()
    with pytest.raises(Misaddressed, match=r"--ca of a command, or SSL_CERT_FILE"):
        either_client(company.url, patience=60.0).embed_query("night route")
    assert time.monotonic() - started < 10


def test_another_host_is_not(either_client: Any, company: Company) -> None:
    """Nor one whose certificate has another name; more certificates would not help."""
    url = company.url.replace("127.0.0.1", "localhost")
    with pytest.raises(Misaddressed, match="certificate cannot be verified") as raised:
        either_client(url, ca=company.ca).embed_query("night route")
    assert "SSL_CERT_FILE" not in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is missing or holds none is named when the client is made, if it is needed."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ca=.*ca\.pem"):
        Client("http://127.0.0.1:9", ca=file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.*ca\.pem"):
        Client("https://127.0.0.1:9")
    Client("http://127.0.0.1:9").close()


def test_commands(company: Company, tmp_path: Path) -> None:
    """`--ca` and SSL_CERT_FILE hold for the commands; without them, a sentence says so."""
    done = pagevec("check", company.url, "--ca", company.ca, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    done = pagevec("check", company.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 3
    assert "--ca" in done.stderr
    text, out = tmp_path / "a.txt", tmp_path / "a.npz"
    text.write_text("The night route carried the most passengers.")
    ask = ["embed", text, "--out", out, "--url", company.url]
    done = pagevec(*ask, SERVICE_API_KEY=KEY, SSL_CERT_FILE=str(company.ca))
    assert done.returncode == 0, done.stdout + done.stderr
    done = pagevec(*ask, SERVICE_API_KEY=KEY)
    assert done.returncode == 3
    assert "--ca" in done.stderr
    assert "Traceback" not in done.stderr
