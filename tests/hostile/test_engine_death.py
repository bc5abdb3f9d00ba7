"""A device that is lost for good: the process says so and ends, and another one takes its place."""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from conftest import KEY
from engine.hash_backend import embed
from hostile.lost_device import LOST, MARK
from pagevec.client import Client
from pagevec.engine.embedder import EXIT_ENGINE_FAILED
from processes import COMMAND, Process, environment, serving
from server.calls import texts, wait_for

pytestmark = pytest.mark.long

BACKENDS = ["hostile.lost_device:LostDevice", "hostile.lost_device:EndsItsThread"]
FATAL = texts(LOST.decode())
TESTS = Path(__file__).parents[1]
END_SECONDS = 10.0


def variables(**more: str) -> dict[str, str]:
    return environment(PYTHONPATH=f"{TESTS}:{TESTS.parent / 'src'}", **more)


def post(process: Process, body: object) -> httpx.Response:
    with process.client() as client:
        return client.post("/embeddings", json=body)


def queued(process: Process) -> float:
    """Return how many inputs wait in the service."""
    with process.client() as client:
        (count,) = re.findall(r"^pagevec_queue_inputs (\S+)", client.get("/metrics").text, re.M)
    return float(count)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_process_ends_with_its_own_code(backend: str, tmp_path: Path) -> None:
    """All who wait get a 503 `engine_failed`; within 10 s the process ends with code 70."""
    with serving(tmp_path, variables(), "--backend", backend) as process:
        assert post(process, texts("a b c")).status_code == 200
        with ThreadPoolExecutor(8) as threads:
            waiting = [threads.submit(post, process, texts(f"slow {n}")) for n in range(7)]
            wait_for(lambda: queued(process) > 0)
            started = time.monotonic()
            fatal = post(process, FATAL)
            answers = [one.result() for one in waiting]
        assert fatal.status_code == 503
        assert fatal.json()["code"] == "engine_failed"
        for answer in answers:  # before the device was lost, or after
            assert answer.status_code == 200 or answer.json()["code"] == "engine_failed"
        assert process.popen.wait(END_SECONDS) == EXIT_ENGINE_FAILED
        assert time.monotonic() - started < END_SECONDS
    assert "failed for good" in process.log.read_text()


def test_a_batch_that_hangs_does_not_keep_it_alive(tmp_path: Path) -> None:
    """A thread stuck in a call to the lost device delays neither the answers nor the end."""
    backend = "hostile.lost_device:HangsAfterwards"
    with serving(tmp_path, variables(), "--backend", backend) as process:
        with ThreadPoolExecutor() as threads:
            stuck = threads.submit(post, process, texts("hangs"))
            time.sleep(0.5)
            assert post(process, FATAL).json()["code"] == "engine_failed"
            assert stuck.result(END_SECONDS).json()["code"] == "engine_failed"
        assert process.popen.wait(END_SECONDS) == EXIT_ENGINE_FAILED


def test_connections_that_do_nothing_do_not_keep_it_alive(tmp_path: Path) -> None:
    """Requests that never end delay the end by seconds, not for ever."""
    head = f"POST /embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with serving(tmp_path, variables(), "--backend", BACKENDS[0]) as process, ExitStack() as open_:
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", process.port))
            open_.enter_context(connection)
            connection.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
        assert post(process, FATAL).status_code == 503
        assert process.popen.wait(END_SECONDS) == EXIT_ENGINE_FAILED


@dataclass
class Supervisor:
    """Starts the service again whenever it ends with a failure, as systemd does.

    Attributes:
        codes: of the processes that have ended.
    """

    command: list[str]
    folder: Path
    variables: dict[str, str]
    codes: list[int]
    stopped: bool = False

    def run(self) -> None:
        while not self.stopped:
            with (self.folder / "log").open("ab") as log:
                self.popen = subprocess.Popen(
                    self.command, cwd=self.folder, env=self.variables, stdout=log, stderr=log
                )
            code = self.popen.wait()
            if not self.stopped:
                self.codes.append(code)
                time.sleep(0.2)


@contextmanager
def supervised(folder: Path, port: int) -> Iterator[Supervisor]:
    command = [*COMMAND, "--port", str(port), "--backend", BACKENDS[0]]
    once = variables(**{MARK: str(folder / "lost-once")})
    supervisor = Supervisor(command, folder, once, [])
    thread = threading.Thread(target=supervisor.run, daemon=True)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stopped = True
        supervisor.popen.terminate()
        thread.join()


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    """Our client asks again: the next process serves what the lost one did not, word by word."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [f"word-{n}" for n in range(60)]
    words.insert(20, LOST.decode())
    with (
        supervised(tmp_path, port) as supervisor,
        Client(f"http://127.0.0.1:{port}", KEY, dtype="float32", patience=60) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        answers = list(threads.map(client.embed_query, words))
        wait_for(lambda: supervisor.codes == [EXIT_ENGINE_FAILED])
    for word, vectors in zip(words, answers, strict=True):
        assert np.array_equal(vectors, [embed(word.encode())])
