"""MCP over streamable HTTP: who is answered, and who is not."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from agents.asking import QUESTIONS, check_everything, over_http, run
from conftest import KEY, Service, assert_shows_no_key, make_settings
from pagevec.agents.documents import LocalDocuments
from pagevec.agents.http import make_app
from pagevec.agents.tools import Tools
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError
from pagevec.local import LocalModel
from pagevec.server.run import address_of, listen, server_for
from processes import environment

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "Authorization": f"Bearer {KEY}",
}


@pytest.fixture(scope="module")
def served(embedder: LocalEmbedder, store: str) -> Iterator[str]:
    """The address of a server over the examples, which is called docs.example.com, too."""
    settings = make_settings(service_api_key=f"another-key-1,{KEY}")
    listener = listen(settings)
    port = listener.getsockname()[1]
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}", "docs.example.com"]
    with closing(LocalDocuments(store, LocalModel(embedder), lambda: None)) as documents:
        app = make_app(Tools(documents).server(), settings, hosts)
        server = server_for(app, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"{address_of(listener)}/mcp"
        server.should_exit = True
        thread.join()


def post(url: str, content: Any = LIST, **headers: str | None) -> httpx.Response:
    """Send a request as a careless program might; a header that is None is left out."""
    wanted = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    given = {name: value for name, value in wanted.items() if value is not None}
    if not isinstance(content, bytes | Iterator):
        content = json.dumps(content).encode()
    return httpx.post(url, content=content, headers=given, trust_env=False, timeout=20)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_client(served: str, mode: str) -> None:
    """The package's own client does all that an agent does, ten searches at once among it.

    It does so by the protocol of today and by that of 2025, which begins with `initialize`.
    """

    async def conversation() -> None:
        async with over_http(served, mode) as agent:
            await check_everything(agent)

            async def search(question: str) -> None:
                [best] = (await agent.ask("search_pages", query=question, k=1))["pages"]
                assert (best["document"]["name"], best["page"]) == QUESTIONS[question]

            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(search, list(QUESTIONS)[number % 3])

    run(conversation)


def test_keys(served: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a key, or with a wrong one, nothing is answered; each valid one counts."""
    assert len(post(served).json()["result"]["tools"]) == 3
    assert post(served, Authorization="Bearer another-key-1").status_code == 200
    for wrong in (None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"):
        answer = post(served, Authorization=wrong)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), wrong
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(served, trust_env=False).status_code == 401
    said = "".join(capfd.readouterr())
    assert "status" in said  # each request has its line
    assert_shows_no_key(said)


def test_hosts_and_origins(served: str) -> None:
    """A page of another site that reaches this address is refused, whatever name it uses."""
    port = served.rpartition("/")[0].rpartition(":")[2]
    for host in (f"localhost:{port}", "docs.example.com"):
        assert post(served, Host=host).status_code == 200, host
        for scheme in ("http", "https"):
            assert post(served, Host=host, Origin=f"{scheme}://{host}").status_code == 200
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost",
        "127.0.0.1:1",
        "localhost.evil",
    ):
        assert post(served, Host=host).status_code == 421, host
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost",
        "http://docs.example.com.evil",
    ):
        assert post(served, Origin=origin).status_code == 403, origin


def test_bodies(served: str) -> None:
    """What is no call of the protocol is refused by status, and the next one is answered."""

    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 4096

    assert post(served, b" " * (300 << 10)).status_code == 413
    assert post(served, endless()).status_code == 413
    assert post(served, b"no json").status_code == 400
    assert post(served, b"[" * 100_000).status_code == 400
    assert post(served, [LIST]).status_code == 400
    assert post(served, Content_Type="text/plain").status_code == 400
    assert post(served, Accept="text/html").status_code == 406
    get = httpx.get(served, headers=HEADERS, trust_env=False)
    assert (get.status_code, get.headers["Allow"]) == (405, "POST")
    elsewhere = post(served.replace("/mcp", "/documents"))
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (404, "not_found")
    assert post(served).status_code == 200


def test_no_key(embedder: LocalEmbedder, store: str) -> None:
    """Settings without a key make no application."""
    with closing(LocalDocuments(store, LocalModel(embedder), lambda: None)) as documents:
        server = Tools(documents).server()
        with pytest.raises(ConfigurationError, match="SERVICE_API_KEY is not set"):
            make_app(server, make_settings(service_api_key=None), ["127.0.0.1:1"])


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_process(store: str, service: Service, tmp_path: Path, number: int) -> None:
    """`pagevec mcp --http` prints its address, answers there, and ends with 0 at a signal."""
    command = [sys.executable, "-m", "pagevec", "mcp", "--store", store, "--url", service.url]
    with (tmp_path / "log").open("wb") as log:
        popen = subprocess.Popen(
            [*command, "--http", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(PAGEVEC_PORT="1"),  # the service's own
            cwd=tmp_path,
        )
    assert popen.stdout is not None
    url = popen.stdout.readline().decode().split()[1]
    assert url.startswith("http://127.0.0.1:")

    async def conversation() -> None:
        async with over_http(url) as agent:
            await check_everything(agent)

    run(conversation)
    popen.send_signal(number)
    assert popen.wait(10) == 0
    assert popen.stdout.read() == b""
    said = (tmp_path / "log").read_text()
    assert "/mcp" in said and "Traceback" not in said
    assert_shows_no_key(said)


@pytest.mark.long
def test_misuse(store: str, tmp_path: Path) -> None:
    """Without a key it does not start; nor where the port is taken."""
    command = [sys.executable, "-m", "pagevec", "mcp", "--http", "--store", store]
    for options, key, words in (
        (["--port", "0"], "", "SERVICE_API_KEY is not set"),
        (["--port", "0"], "with space", "SERVICE_API_KEY"),
        (["--host", "203.0.113.1"], KEY, "cannot listen on 203.0.113.1:8766"),
    ):
        done = subprocess.run(
            [*command, *options],
            env=environment(SERVICE_API_KEY=key),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert words in done.stderr and "Traceback" not in done.stderr
        assert not key or key not in done.stderr
