"""A service under attack: a process of its own with limited memory, watched all the time."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from conftest import KEY
from processes import MIB, Process, environment, serving
from server.calls import image, images, texts

INNOCENT_KEY = "innocent-key"
# The kernel refuses the process more address space than this above what it has when idle.
_HARD_LIMIT = 6 * 1024 * MIB
# Asks for /health from a process of its own, as other callers do: this one is busy with attacks.
_WATCHER = """
import http.client, sys, time
while True:
    started = time.perf_counter()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
        connection.request("GET", "/health")
        seconds = time.perf_counter() - started if connection.getresponse().read() else 99.0
        connection.close()
    except OSError:
        seconds = 99.0
    print(seconds, flush=True)
    time.sleep(0.02)
"""


@dataclass
class Target:
    """A service with two keys: `KEY` is the attacker's, `INNOCENT_KEY` another caller's.

    Attributes:
        process: the service.
        idle: bytes resident before the attack.
        watched: file of the seconds that each `GET /health` took, 99 where it was not answered.
    """

    process: Process
    idle: int
    watched: Path

    def client(self, key: str = KEY, **options: Any) -> httpx.Client:
        """Return an HTTP client that sends `key`."""
        return httpx.Client(
            base_url=self.process.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(120),
            trust_env=False,
            **options,
        )

    def time_query(self) -> float:
        """Return the seconds that an innocent caller's query takes; it has to be answered."""
        return self._time(texts("Where does the night route end?"))

    def time_page(self) -> float:
        """Return the seconds that an innocent caller's page takes; it has to be answered."""
        return self._time(images(image(620, 877, seed=7)))

    def _time(self, body: dict[str, Any]) -> float:
        with self.client(INNOCENT_KEY) as client:
            started = time.perf_counter()
            answer = client.post("/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            return time.perf_counter() - started

    def check_alive(self, budget: int, p99: float = 0.1) -> None:
        """Check what has to hold after every attack.

        Args:
            budget: bytes by which the peak of the resident memory may exceed the idle state.
            p99: seconds for 99 of 100 answers of `/health`.
        """
        assert self.process.popen.poll() is None, self.process.log.read_text()[-4000:]
        grown = self.process.memory("VmHWM") - self.idle
        assert grown <= budget, f"{grown / MIB:.0f} MiB above idle, {budget / MIB:.0f} allowed"
        latencies = [float(line) for line in self.watched.read_text().splitlines()]
        assert latencies, "/health was never answered"
        slow = float(np.quantile(latencies, 0.99))
        assert slow < p99, f"99 of 100 /health within {slow:.3f} s, of {len(latencies)}"


@contextmanager
def attacked(folder: Path, *options: str, **variables: str) -> Iterator[Target]:
    """Serve the bundled model in a process of limited memory, watched until the block ends."""
    settings = environment(**{"SERVICE_API_KEY": f"{KEY},{INNOCENT_KEY}", **variables})
    with serving(folder, settings, *options) as process:
        space = process.memory("VmSize") + _HARD_LIMIT
        resource.prlimit(process.popen.pid, resource.RLIMIT_AS, (space, space))
        target = Target(process, process.memory("VmHWM"), folder / "watched")
        target.time_query(), target.time_page()  # warm
        with target.watched.open("wb") as file:
            command = [sys.executable, "-c", _WATCHER, str(process.port)]
            watcher = subprocess.Popen(command, stdout=file)
        try:
            yield target
        finally:
            watcher.kill()
            watcher.wait()
