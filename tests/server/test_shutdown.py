"""`pagevec serve` as a process: how it ends, what it refuses to start with, what it never logs."""

import base64
import contextlib
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest

from conftest import png
from processes import Process, environment, run_to_the_end, serving

pytestmark = [pytest.mark.long, pytest.mark.alone]

# Seconds of work: what comes after it waits.
LONG_TEXT = "many words " * 1600


def queued(process: Process) -> int:
    for line in httpx.get(f"{process.url}/metrics").text.splitlines():
        if line.startswith("pagevec_queue_inputs "):
            return int(float(line.split()[1]))
    raise AssertionError("there is no such metric")


def wait_for_queue(process: Process, inputs: int) -> None:
    end = time.monotonic() + 60
    while queued(process) < inputs:
        assert time.monotonic() < end, "the requests did not come in"


def count(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    with np.load(BytesIO(answer.content), allow_pickle=False) as arrays:
        assert all(np.isfinite(arrays[name]).all() for name in arrays.files if "emb_" in name)
        return int(arrays["count"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_answers_what_is_in_flight(tmp_path: Path, number: int) -> None:
    """After a signal all requests in flight get their 200, new ones a 503 meanwhile; exit code 0.

    Who comes on a new connection is told `draining` and that the connection ends. Once all are
    answered nobody listens any more.
    """
    one_pass_at_a_time = environment(PAGEVEC_MODEL_THREADS="1")
    with (
        serving(tmp_path, one_pass_at_a_time, "--max-visual-tokens", "16") as process,
        ThreadPoolExecutor(8) as threads,
        process.client(limits=httpx.Limits(max_connections=8)) as client,
    ):
        long = {"input_type": "text", "inputs": [LONG_TEXT]}
        short = {"input_type": "text", "inputs": ["a", "b"]}
        page = {"input_type": "image", "inputs": [base64.b64encode(png(400, 300)).decode()]}
        asked = [threads.submit(client.post, "/npz/embeddings", json=long)]
        wait_for_queue(process, 1)
        for body in (*[short] * 5, *[page] * 2):
            asked.append(threads.submit(client.post, "/npz/embeddings", json=body))
        wait_for_queue(process, 1 + 5 * 2 + 2)
        process.popen.send_signal(number)
        in_flight = sum(not one.done() for one in asked)
        refusals = []
        with process.client() as late:
            while late.get("/ready").status_code == 200:
                time.sleep(0.01)
            while not all(one.done() for one in asked):
                with contextlib.suppress(httpx.TransportError):
                    refusals.append(late.post("/embeddings", json=short))
                time.sleep(0.05)

        assert in_flight == 8
        assert [count(one.result()) for one in asked] == [1, *[2] * 5, 1, 1]
        told = [one for one in refusals if one.status_code == 503]
        assert told, [one.status_code for one in refusals]
        assert all(one.json()["code"] == "draining" for one in told)
        assert all(one.headers["connection"] == "close" for one in told)
        assert all(int(one.headers["retry-after"]) > 0 for one in told)
        assert process.popen.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{process.url}/health")
    log = process.log.read_text()
    assert "Traceback" not in log
    assert log.count("status=200") >= 8


SLOW_BACKEND = """
import time
from hash_backend import HashBackend

class SlowBackend(HashBackend):
    def forward(self, batch):
        if any(word == b"slow" for words in batch for word in words):
            time.sleep(100)
        return super().forward(batch)
"""


@pytest.mark.parametrize(("seconds", "signals"), [("1", 1), ("150", 2)], ids=["time", "Ctrl-C"])
def test_the_end_has_a_deadline(tmp_path: Path, seconds: str, signals: int) -> None:
    """A request that is not done in time is a 503; the model's pass is not waited for then.

    A second Ctrl-C means that there is no time.
    """
    backend = Path(__file__).parents[1] / "engine" / "hash_backend.py"
    (tmp_path / backend.name).write_text(backend.read_text())
    (tmp_path / "slow.py").write_text(SLOW_BACKEND)
    variables = environment(PAGEVEC_SHUTDOWN_SECONDS=seconds)
    with (
        serving(tmp_path, variables, "--backend", "slow:SlowBackend") as process,
        ThreadPoolExecutor(1) as threads,
        process.client() as client,
    ):
        body = {"input_type": "text", "inputs": ["slow"]}
        asked = threads.submit(client.post, "/npz/embeddings", json=body)
        wait_for_queue(process, 1)
        begun = time.monotonic()
        for _ in range(signals - 1):
            process.popen.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.stop(signal.SIGINT) == 0
        assert time.monotonic() - begun < 15
        answer = asked.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert answer.headers["connection"] == "close"
    log = process.log.read_text()
    assert "status=503" in log
    assert "Traceback" not in log


def test_neither_key_nor_inputs_in_the_log(tmp_path: Path) -> None:
    """Even at level debug, what callers send stays out of the output: keys, texts, images, bodies.

    The requests are served, refused and faulty ones, of all kinds.
    """
    key, wrong = "the-key-of-this-test", "another-key-of-this-test"
    text, field = "zebra-crossing-at-midnight", "walrus-field"
    image = base64.b64encode(png(64, 64, seed=11)).decode()
    variables = environment(SERVICE_API_KEY=f"{key},second-{key}", PAGEVEC_LOG_LEVEL="debug")
    bodies = [
        json.dumps(body).encode()
        for body in (
            {"input_type": "text", "inputs": [text]},
            {"input_type": "image", "inputs": [image]},
            {"input_type": "image", "inputs": [text]},
            {"input_type": "image", "inputs": [image[:-100]]},
            {"input_type": "image", "inputs": [image, image[: len(image) // 2]]},
            {"input_type": text, "inputs": [text]},
            {"input_type": "text", "inputs": [text], field: text},
            {"input_type": "text", "inputs": [[text]]},
            {"input_type": "text", "inputs": [text * 2000]},
            text,
        )
    ]
    bodies += [text.encode(), bodies[0][:-1], bodies[0] + b"\xff"]
    with serving(tmp_path, variables, "--max-visual-tokens", "16", "--log-format", "json") as it:
        statuses = set()
        for body in bodies:
            for given in (key, wrong):
                headers = {"Authorization": f"Bearer {given}"}
                answer = httpx.post(f"{it.url}/", content=body, headers=headers, timeout=60)
                statuses.add(answer.status_code)
        httpx.get(f"{it.url}/embeddings?key={key}&text={text}")
        assert statuses == {200, 400, 401}
        assert it.stop(signal.SIGINT) == 0
    said = it.output.read_text() + it.log.read_text()
    assert said.count('"event": "request"') >= 2 * len(bodies)
    for secret in (key, wrong, text, field, image[40:80], image[-80:-40]):
        assert secret not in said
    requests = [json.loads(line) for line in said.splitlines() if '"event": "request"' in line]
    assert all(line["id"] and line["path"] and line["status"] for line in requests)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"PAGEVEC_HOST": "0.0.0.0", "SERVICE_API_KEY": ""},
            ["SERVICE_API_KEY is not set", "PAGEVEC_HOST='0.0.0.0'", "127.0.0.1"],
        ),
        (
            {
                "PAGEVEC_MAX_INPUTS": "many",
                "PAGEVEC_PORT": "65536",
                "PAGEVEC_DEFAULT_FORMAT": "xml",
                "PAGEVEC_RATE_LIMIT": "often",
            },
            [
                "PAGEVEC_MAX_INPUTS='many': expected a whole number, at least 1",
                "PAGEVEC_PORT='65536': expected a whole number, at least 0 and at most 65,535",
                "PAGEVEC_DEFAULT_FORMAT='xml': expected json or npz",
                "PAGEVEC_RATE_LIMIT='often': expected a rate such as `600/minute`",
            ],
        ),
        (
            {"PAGEVEC_MAXINPUTS": "1"},
            ["unknown setting PAGEVEC_MAXINPUTS; did you mean PAGEVEC_MAX_INPUTS?"],
        ),
    ],
    ids=["no key", "wrong values", "unknown name"],
)
def test_settings_that_stop_the_start(
    tmp_path: Path, variables: dict[str, str], said: list[str]
) -> None:
    """A wrong setting ends the start with code 2 and one message: name, value, what is expected."""
    ended = run_to_the_end(tmp_path, environment(**variables))
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("pagevec: ")
    for words in said:
        assert words in ended.stderr


def test_a_bad_key_is_not_shown(tmp_path: Path) -> None:
    """A key that no header can carry stops the start; the sentence does not give it away."""
    ended = run_to_the_end(tmp_path, environment(SERVICE_API_KEY="my secret"))
    assert ended.returncode == 2
    assert "SERVICE_API_KEY" in ended.stderr
    assert "secret" not in ended.stderr


def test_taken_port(tmp_path: Path) -> None:
    """A port that is in use ends the start with code 2 and a sentence that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_to_the_end(tmp_path, environment(), "--port", str(port))
    assert ended.returncode == 2, ended.stderr
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "PAGEVEC_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr
