"""`pagevec serve --ray` with two replicas on the CPU: under load, killed, replaced, stopped.

All tests share one process; the last test stops it.
"""

import json
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import KEY
from documents import commands, run
from load import loaded
from pagevec.client import Client
from processes import MIB, Process, environment, serving

pytestmark = pytest.mark.long

TEXTS = ["which route carried the most passengers?", "fares in 2024"]
ASK = {"input_type": "text", "inputs": TEXTS}
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
# Seconds of work, for which later requests wait.
LONG = {"input_type": "text", "inputs": ["many words " * 400]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEY)
    return file


@pytest.fixture(scope="module")
def variables(keys: Path) -> Iterator[dict[str, str]]:
    temporary = tempfile.mkdtemp(prefix="ray")  # a short name: Ray's sockets are in it
    made = environment(
        RAY_TMPDIR=temporary,
        RAY_AUTH_TOKEN=secrets.token_hex(16),
        RAY_USAGE_STATS_ENABLED="0",
        SERVICE_API_KEY_FILE=str(keys),
        PAGEVEC_MAX_VISUAL_TOKENS="16",
    )
    del made["SERVICE_API_KEY"]
    yield made
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]
) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("host")
    with serving(folder, variables, "--ray", "--replicas", "2", key=KEY) as started:
        yield started


def replicas(process: Process) -> list[psutil.Process]:
    family = psutil.Process(process.popen.pid).children(recursive=True)
    return [one for one in family if "ray::ServeReplica" in one.name() + "".join(one.cmdline())]


def values(process: Process, metric: str, **labels: str) -> dict[str, float]:
    """Return, for each replica, the sum of a metric's samples with these labels."""
    page = httpx.get(f"{process.url}/metrics", timeout=30).raise_for_status().text
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == metric and labels.items() <= sample.labels.items():
                name = sample.labels["replica"]
                sums[name] = sums.get(name, 0.0) + sample.value
    return sums


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def embed(process: Process) -> Callable[[], str]:
    """Return a caller that uses our client, which retries."""
    client = Client(process.url, KEY)

    def call() -> str:
        return str([vectors.shape[1] for vectors in client.embed_texts(TEXTS)])

    return call


def status(process: Process, keys: dict[str, str], name: str) -> Callable[[], int]:
    """Return a caller that never retries and uses the key that `keys` has at that moment."""
    client = httpx.Client(timeout=60, trust_env=False)

    def call() -> int:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        return client.post(f"{process.url}/npz/embeddings", json=ASK, headers=headers).status_code

    return call


def test_both_replicas_work(process: Process) -> None:
    """Eight callers keep both busy; /metrics covers both; an answer carries one request id."""
    with loaded(*(embed(process) for _ in range(8)), pause=0) as load:
        load.wait_for(60)
    assert set(load.answers) == {"[128, 128]"}
    inputs = values(process, "pagevec_inputs_total")
    assert len(inputs) == 2
    assert min(inputs.values()) >= 10
    headers = {**AUTHORIZED, "X-Request-ID": "mine", "Accept": "application/x-npz"}
    answer = httpx.post(f"{process.url}/embeddings", json=ASK, headers=headers)
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.headers["content-type"] == "application/x-npz"


def test_a_refusal_overtakes_the_body(process: Process) -> None:
    """Callers read a 401 or 413 through the proxy before they have sent the whole body."""
    for key, length, expected in [("wrong", 50 * MIB, 401), (KEY, 300 * MIB, 413)]:
        head = (
            f"POST /embeddings HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
            connection.sendall(head.encode() + b" " * MIB)
            answer = connection.recv(65536)
        assert answer.startswith(f"HTTP/1.1 {expected} ".encode())


def test_a_body_of_139_mb(process: Process) -> None:
    """A body as long as the largest batch that morphik-core sends arrives complete."""
    body = json.dumps({"input_type": "text", "inputs": ["x"]}).ljust(139_000_000)
    answer = httpx.post(f"{process.url}/", content=body, headers=AUTHORIZED, timeout=60)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["embeddings"]) == 1


def test_work_of_who_left_is_not_done(process: Process) -> None:
    """Requests of callers who hang up leave the queue at once, and none of them is answered."""
    body = {"input_type": "text", "inputs": LONG["inputs"] * 40}

    def count(status: str) -> float:
        return sum(values(process, "pagevec_requests_total", status=status).values())

    done, left = count("200"), count("499")
    for _ in range(4):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{process.url}/", json=body, headers=AUTHORIZED, timeout=0.5)
    # One whose caller left before a replica had it is counted nowhere.
    wait_until(lambda: count("499") > left, 10)
    wait_until(lambda: not sum(values(process, "pagevec_queue_inputs").values()), 10)
    assert count("200") == done
    assert count("499") <= left + 4
    answered = httpx.post(f"{process.url}/", json=ASK, headers=AUTHORIZED, timeout=30)
    assert answered.status_code == 200


def test_rotation_under_load(process: Process, keys: Path) -> None:
    """Both replicas read new keys from the file: callers who switch in between see only 200."""

    def write(text: str) -> None:
        made = keys.with_suffix(".new")
        made.write_text(text)
        made.replace(keys)

    names = dict.fromkeys("abcd", KEY)
    with loaded(*(status(process, names, name) for name in names)) as load:
        load.wait_for(20)
        write(f"{KEY},new")
        for name in names:
            load.wait_for(10)
            names[name] = "new"
        load.wait_for(10)
        write("new")
        load.wait_for(20)
        old = [httpx.post(f"{process.url}/", json=ASK, headers=AUTHORIZED) for _ in range(8)]
        assert {answer.status_code for answer in old} == {401}
        write(f"{KEY},new")
    assert set(load.answers) == {200}


def test_a_killed_replica_loses_nothing(process: Process) -> None:
    """After SIGKILL of one of two replicas, no call of eight clients fails."""
    with loaded(*(embed(process) for _ in range(8))) as load:
        load.wait_for(30)
        replicas(process)[0].kill()
        load.wait_for(120)
    print(f"killed: {load.answers.total()} calls, {load.answers}")
    assert set(load.answers) == {"[128, 128]"}


def test_a_rolling_update_drops_nothing(
    process: Process, variables: dict[str, str], tmp_path: Path
) -> None:
    """The command of docs/ray.md replaces both replicas, and all requests are answered.

    The load is four of our clients and four callers that never retry.
    """
    before = set(values(process, "pagevec_ready"))
    names = dict.fromkeys("abcd", KEY)
    callers = [*(embed(process) for _ in names), *(status(process, names, name) for name in names)]
    with loaded(*callers) as load:
        load.wait_for(20)
        run(commands("ray.md", "rolling update")[0], tmp_path, **variables)
        load.wait_for(20)
    print(f"rolling update: {load.answers.total()} calls, {load.answers}")
    assert set(load.answers) == {"[128, 128]", 200}
    assert not before & set(values(process, "pagevec_ready"))
    info = httpx.get(f"{process.url}/info").json()
    assert info["limits"]["max_inputs"] == 17


def test_stopping_answers_what_is_in_flight(process: Process) -> None:
    """After SIGTERM, requests in flight get a 200, new ones a 503 or no connection; exit code 0."""
    ask = {"json": LONG, "headers": AUTHORIZED, "timeout": 60}
    refused = set()
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(httpx.post, f"{process.url}/", **ask) for _ in range(6)]
        wait_until(lambda: sum(values(process, "pagevec_queue_inputs").values()) == 6)
        process.popen.terminate()
        while process.popen.poll() is None:
            try:
                answer = httpx.post(f"{process.url}/", json=ASK, headers=AUTHORIZED, timeout=60)
                refused.add(answer.status_code)
            except httpx.TransportError:
                refused.add("no connection")
            time.sleep(0.1)
    assert [one.result().status_code for one in asked] == [200] * 6
    assert refused <= {200, 503, "no connection"}
    assert 503 in refused
    assert process.popen.returncode == 0
