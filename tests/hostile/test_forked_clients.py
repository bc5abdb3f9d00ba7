"""What a cluster does to callers: processes that fork, and services that are killed under load."""

import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from client import forking
from client.forking import WAYS
from client.test_fork import embed_words, words
from conftest import KEY
from pagevec.client import Client
from processes import Process, environment, serving

__all__ = ["words"]  # a fixture

TEXTS = 10_000


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_ten_thousand_texts(way: str, words: Process) -> None:
    """10,000 texts through one warm client, forked or in threads: each has its own vectors."""
    embed_words(way, words, TEXTS)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restarts_cost_no_call(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that ends and starts again, three times under load: callers lose nothing."""
    source = Path(__file__).parents[1] / "engine" / "hash_backend.py"
    (tmp_path / "words.py").write_text(source.read_text())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    ended, found = threading.Event(), Counter[str]()

    def call(caller: int) -> Counter[str]:
        tally, turn = Counter[str](), 0
        while not ended.is_set():
            tally += forking.check([f"word-{caller}-{turn}-{each}" for each in range(8)])
            turn += 1
        return tally

    with ThreadPoolExecutor(4) as callers, ExitStack() as stack:
        variables = environment(PAGEVEC_PORT=port)
        calls = []
        for life in range(4):
            with serving(tmp_path, variables, "--backend", "words:HashBackend") as service:
                if not life:
                    made = Client(service.url, KEY, max_inputs=4, patience=60.0)
                    stack.callback(ended.set)
                    monkeypatch.setattr(forking, "client", stack.enter_context(made), raising=False)
                    calls = [callers.submit(call, caller) for caller in range(4)]
                ended.wait(1.0)
                if life < 3:
                    service.stop(number)
                else:
                    ended.set()
                    found = sum((one.result(60) for one in calls), Counter[str]())
    assert set(found) == {"right"}, found
    assert found["right"] > 100
