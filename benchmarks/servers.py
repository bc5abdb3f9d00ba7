"""The two services under load, each a process of its own on a free port of loopback."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

_START_SECONDS = 300.0
_STOP_SECONDS = 30.0
_SERVE = "from pagevec.cli import main; main()"
_TIMEOUT = httpx.Timeout(600.0)


class ServerFailed(Exception):
    """A service did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """A running service and how to reach it."""

    url: str
    key: str

    def client(self) -> httpx.Client:
        """Return a client that sends the key and, like morphik-core, connects for every call."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            timeout=_TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )


def pagevec(model: Path, device: str = "cpu") -> AbstractContextManager[Server]:
    """Run `pagevec serve` with its default settings on `device`."""
    server, port = _free_address()
    inherited = {name: value for name, value in os.environ.items() if name[:8] != "PAGEVEC_"}
    settings = {
        "PAGEVEC_MODEL": str(model),
        "PAGEVEC_DEVICE": device,
        "PAGEVEC_PORT": str(port),
        "SERVICE_API_KEY": server.key,
    }
    return _running(server, "/ready", ["-c", _SERVE, "serve"], {**inherited, **settings})


def plain_loop(model: Path, *, lean: bool = False) -> AbstractContextManager[Server]:
    """Run the yardstick; see `benchmarks.plain_loop`."""
    server, port = _free_address()
    options = ["--model", str(model), "--port", str(port), "--key", server.key]
    command = ["-m", "benchmarks.plain_loop", *options, *(["--lean"] if lean else [])]
    # It imports from our engine, which lets OpenMP's threads sleep; this is OpenMP's own default.
    environment = {**os.environ, "GOMP_SPINCOUNT": "300000"}
    return _running(server, "/health", command, environment)


def _free_address() -> tuple[Server, int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return Server(f"http://127.0.0.1:{port}", secrets.token_hex(8)), port


@contextmanager
def _running(
    server: Server, ready: str, command: list[str], environment: dict[str, str]
) -> Iterator[Server]:
    # Its folder is empty: no .env of the caller's changes its settings.
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, *command],
                env=environment,
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:
            _wait_until_ready(process, server, ready, log)
            yield server
        finally:
            _stop(process)


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", server: Server, path: str, log: Path
) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if _answers(server, path):
            return
        time.sleep(0.2)
    raise ServerFailed(f"{process.args!r} did not start:\n{log.read_text()[-2000:]}")


def _answers(server: Server, path: str) -> bool:
    try:
        with server.client() as http:
            return http.get(path).is_success
    except httpx.TransportError:
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
