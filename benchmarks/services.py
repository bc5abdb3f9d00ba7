"""The services under test, each a process of its own on loopback, and the load on them."""

import itertools
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from benchmarks import BenchmarkFailed
from benchmarks.machine import time_once

_ROOT = Path(__file__).parents[1]
_START_SECONDS = 300.0
_STOP_SECONDS = 30.0
_SERVE = "from pagevec.cli import main; main()"
_TIMEOUT = httpx.Timeout(600.0)
# A short load says little: it goes on, with the same bodies, for at least this long.
_LEAST_SECONDS = 1.0
_MEAN_PAUSE = 0.1
_SAMPLERS = 32


class ServiceFailed(BenchmarkFailed):
    """A service did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        url: its address.
        key: its bearer key.
        pid: its process.
    """

    url: str
    key: str
    pid: int = 0

    def client(self) -> httpx.Client:
        """Return a client that sends the key and, like morphik-core, connects for every call."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            timeout=_TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )


@dataclass(frozen=True)
class Load:
    """Requests by several clients at the same time.

    Attributes:
        name: what is sent.
        bodies: request bodies, sent in turn.
        batch: inputs in each body.
        clients: how many send at the same time; each waits for its answer.
        requests: how many are sent, at least.
    """

    name: str
    bodies: list[bytes]
    batch: int
    clients: int
    requests: int


@dataclass(frozen=True)
class Answers:
    """What came back under a load.

    Attributes:
        inputs: inputs embedded.
        seconds: from the first request to the last answer.
        latencies: seconds of each request.
        bytes: of all answers.
    """

    inputs: int
    seconds: float
    latencies: list[float]
    bytes: int

    @property
    def inputs_per_second(self) -> float:
        """Throughput over all clients."""
        return self.inputs / self.seconds


def serve_pagevec(
    checkpoint: Path,
    device: str = "cpu",
    *,
    other_keys: Sequence[str] = (),
    model_threads: int | None = None,
) -> AbstractContextManager[Service]:
    """Run `pagevec serve` with its default settings on `device`.

    Args:
        checkpoint: of the model.
        device: as in the settings.
        other_keys: are valid too.
        model_threads: batches that run at the same time, unless the default is wanted.
    """
    service, port = _free_address()
    inherited = {name: value for name, value in os.environ.items() if name[:8] != "PAGEVEC_"}
    settings = {
        "PAGEVEC_MODEL": str(checkpoint),
        "PAGEVEC_DEVICE": device,
        "PAGEVEC_PORT": str(port),
        "SERVICE_API_KEY": ",".join([service.key, *other_keys]),
    }
    if model_threads is not None:
        settings["PAGEVEC_MODEL_THREADS"] = str(model_threads)
    return _running(service, "/ready", ["-c", _SERVE, "serve"], {**inherited, **settings})


def serve_plain_loop(checkpoint: Path, *, lean: bool = False) -> AbstractContextManager[Service]:
    """Run the service of `benchmarks.plain_loop`."""
    service, port = _free_address()
    options = ["--model", str(checkpoint), "--port", str(port), "--key", service.key]
    command = ["-m", "benchmarks.plain_loop", *options, *(["--lean"] if lean else [])]
    # It imports pagevec.engine, which makes OpenMP's threads sleep soon; this is OpenMP's default.
    environment = {**os.environ, "GOMP_SPINCOUNT": "300000"}
    return _running(service, "/health", command, environment)


def put_under_load(service: Service, path: str, load: Load) -> Answers:
    """Send `load` to `path`, or more of it, each request over a connection of its own.

    Raises:
        httpx.HTTPError: an answer is not a 200, or there is none.
    """
    started = time.perf_counter()
    numbers = itertools.takewhile(
        lambda number: number < load.requests or time.perf_counter() < started + _LEAST_SECONDS,
        itertools.count(),
    )
    with service.client() as http, ThreadPoolExecutor(load.clients) as pool:
        clients = [pool.submit(_send, http, path, load, numbers) for _ in range(load.clients)]
        answers = [answer for client in clients for answer in client.result()]
    return Answers(
        inputs=len(answers) * load.batch,
        seconds=time.perf_counter() - started,
        latencies=[seconds for seconds, _ in answers],
        bytes=sum(size for _, size in answers),
    )


def sample_latency(ask: Callable[[], object], until: Callable[[], bool]) -> list[float]:
    """Ask at random times, at least once, and return the seconds of each answer.

    The next question does not wait for the last answer: it would always come just after a batch
    has begun.
    """
    pauses, asked = np.random.default_rng(0), list[Future[float]]()
    with ThreadPoolExecutor(_SAMPLERS) as pool:
        while not asked or not until():
            time.sleep(pauses.exponential(_MEAN_PAUSE))
            asked.append(pool.submit(time_once, ask))
    return [one.result() for one in asked]


def _send(
    http: httpx.Client, path: str, load: Load, numbers: Iterator[int]
) -> list[tuple[float, int]]:
    answers = []
    for number in numbers:
        started = time.perf_counter()
        response = http.post(path, content=load.bodies[number % len(load.bodies)])
        size = len(response.raise_for_status().content)
        answers.append((time.perf_counter() - started, size))
    return answers


def _free_address() -> tuple[Service, int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return Service(f"http://127.0.0.1:{port}", secrets.token_hex(8)), port


@contextmanager
def _running(
    service: Service, ready: str, command: list[str], environment: dict[str, str]
) -> Iterator[Service]:
    path = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH")]))
    # An empty working directory: no .env file changes the settings.
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, *command],
                env={**environment, "PYTHONPATH": path},
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:
            _wait_until_ready(process, service, ready, log)
            yield replace(service, pid=process.pid)
        finally:
            _stop(process)


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", service: Service, path: str, log: Path
) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if _answers(service, path):
            return
        time.sleep(0.2)
    raise ServiceFailed(f"{process.args!r} did not start:\n{log.read_text()[-2000:]}")


def _answers(service: Service, path: str) -> bool:
    try:
        with service.client() as http:
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
