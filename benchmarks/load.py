"""HTTP load: several clients at once, and one that looks on meanwhile."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np

from benchmarks.clock import seconds_of
from benchmarks.servers import Server

# A short load says little: it goes on, over the same batches, for at least so long.
_LEAST_SECONDS = 1.0
_MEAN_PAUSE = 0.1
_WATCHERS = 32


@dataclass(frozen=True)
class Load:
    """So many `requests` by `clients` at the same time: `bodies` of `batch` inputs, in turn."""

    name: str
    bodies: list[bytes]
    batch: int
    clients: int
    requests: int


@dataclass(frozen=True)
class Seen:
    """What a load gave: latencies are those of requests, in seconds; bytes are of answers."""

    inputs: int
    seconds: float
    latencies: list[float]
    received: int

    @property
    def inputs_per_second(self) -> float:
        """The rate over all clients."""
        return self.inputs / self.seconds


def run_load(server: Server, path: str, load: Load) -> Seen:
    """Send `load` to `path`, or more of it, each request over a connection of its own.

    Raises:
        httpx.HTTPError: an answer is not a 200, or there is none.
    """
    started = time.perf_counter()
    turns = itertools.takewhile(
        lambda turn: turn < load.requests or time.perf_counter() < started + _LEAST_SECONDS,
        itertools.count(),
    )
    with server.client() as http, ThreadPoolExecutor(load.clients) as pool:
        clients = [pool.submit(_client, http, path, load, turns) for _ in range(load.clients)]
        answers = [answer for client in clients for answer in client.result()]
    return Seen(
        inputs=len(answers) * load.batch,
        seconds=time.perf_counter() - started,
        latencies=[seconds for seconds, _ in answers],
        received=sum(size for _, size in answers),
    )


def watch(ask: Callable[[], object], until: Callable[[], bool]) -> list[float]:
    """Ask at random times, once at least; return the seconds that each took.

    Nobody waits for the answer before: who did would ask just after a batch began.
    """
    pauses, seen = np.random.default_rng(0), list[Future[float]]()
    with ThreadPoolExecutor(_WATCHERS) as pool:
        while not seen or not until():
            time.sleep(pauses.exponential(_MEAN_PAUSE))
            seen.append(pool.submit(seconds_of, ask))
    return [one.result() for one in seen]


def _client(
    http: httpx.Client, path: str, load: Load, turns: Iterator[int]
) -> list[tuple[float, int]]:
    return [_ask(http, path, load.bodies[turn % len(load.bodies)]) for turn in turns]


def _ask(http: httpx.Client, path: str, body: bytes) -> tuple[float, int]:
    started = time.perf_counter()
    response = http.post(path, content=body).raise_for_status()
    return time.perf_counter() - started, len(response.content)
