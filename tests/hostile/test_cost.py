"""What a request costs is known before it is done; one caller's load is not another one's wait."""

import json
import re
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hostile.target import INNOCENT_KEY, Target, attacked
from processes import MIB
from server.calls import arrays, error, image, images, texts

pytestmark = [pytest.mark.long, pytest.mark.alone]

# Decoding and pooling, one answer on its way, and what the allocator keeps.
BUDGET = 2560 * MIB
DOCUMENTED = {200, 413, 503}
# HTTP, and a machine that does other things.
SLACK = 1.0
A4 = (1240, 1754)


def post(target: Target, body: dict[str, Any], path: str = "/npz/embeddings") -> httpx.Response:
    with target.client() as client:
        return client.post(path, json=body)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("cost")) as one:
        yield one
        one.check_alive(budget=BUDGET)


@pytest.mark.parametrize("characters", [25_000, 32_000])
def test_pooling_that_takes_too_much_is_refused_before_it_is_begun(
    target: Target, characters: int
) -> None:
    """The pairs of a long text's vectors take gigabytes: a 413 at once, not after the model."""
    started = time.monotonic()
    sentence = error(
        post(target, {**texts("x" * characters), "pool_factor": 2}), 413, "too_much_work", 0
    )
    assert "pool" in sentence
    assert time.monotonic() - started < 5


def test_pooling_within_the_budget_is_done(target: Target) -> None:
    """A text of 3,000 tokens leaves half as many vectors."""
    answer = arrays(post(target, {**texts("x" * 3000), "pool_factor": 2}))
    assert 1400 < len(answer["emb_0"]) < 1600


def test_a_small_request_for_a_huge_answer(tmp_path: Path) -> None:
    """An answer over the limit is refused before the model runs; a smaller form of it is sent."""
    limit = {"PAGEVEC_MAX_ANSWER_BYTES": "4000000"}
    with attacked(tmp_path, **limit) as target:
        body = texts(*["word " * 60] * 16)
        sentence = error(post(target, body, "/json/embeddings"), 413, "too_much_work")
        assert "npz" in sentence
        assert "bytes" in sentence
        assert len(arrays(post(target, {**body, "pool_factor": 4}))) == 2 + 16
        assert post(target, texts("word " * 60), "/json/embeddings").status_code == 200


@pytest.mark.parametrize("seed", [1, 2])
def test_requests_of_any_size(target: Target, seed: int) -> None:
    """Texts and pages of sizes drawn at random, pooled or not: done, or refused with a reason."""
    draw = np.random.default_rng(seed)
    for _ in range(8):
        body = draw_request(draw)
        started = time.monotonic()
        answer = post(target, body)
        assert answer.status_code in DOCUMENTED, answer.text
        if answer.status_code == 413:
            assert answer.json()["code"] in {"too_much_work", "too_many_inputs"}
            assert time.monotonic() - started < 10
    assert target.time_query() < 5


def draw_request(draw: np.random.Generator) -> dict[str, Any]:
    factor = {"pool_factor": int(draw.choice([1, 1, 2, 7]))}
    count = int(2 ** draw.uniform(0, 8))
    if draw.random() < 0.3:
        width, height = (int(side) for side in 2 ** draw.uniform(3, 11, size=2))
        return {**images(*[image(width, height)] * min(count, 8)), **factor}
    # Few long texts, or many short ones, so that what is done takes seconds.
    lengths = 2 ** draw.uniform(0, 15 - np.log2(count) / 2, size=count)
    return {**texts(*("w" * min(int(length), 32_000) for length in lengths)), **factor}


FLOODS = {
    "pages": [images(*[image(*A4, seed=1)] * 16)],
    "long texts": [texts("y" * 15_000), texts(*["many words " * 60] * 40)],
    "pooled": [
        {**texts(*["x" * 6000] * 4), "pool_factor": 2},
        {**images(*[image(*A4, seed=2)] * 16), "pool_factor": 3},
    ],
    "everything": [
        images(*[image(*A4, seed=3)] * 16),
        texts("y" * 12_000),
        {**texts(*["x" * 3000] * 8), "pool_factor": 2},
        texts(*[f"short {n}" for n in range(256)]),
    ],
}


@contextmanager
def flooded(target: Target, bodies: list[dict[str, Any]], callers: int = 8) -> Iterator[list[int]]:
    """Send `bodies` with the attacker's key, over many connections; yield the statuses so far."""
    ended, statuses = threading.Event(), list[int]()
    sent = [json.dumps(body).encode() for body in bodies]

    def send(number: int) -> None:
        with target.client() as client:
            while not ended.is_set():
                content = sent[number % len(sent)]
                try:
                    statuses.append(client.post("/npz/embeddings", content=content).status_code)
                except httpx.HTTPError:
                    statuses.append(0)
                ended.wait(0.0 if statuses[-1] == 200 else 0.5)

    threads = [threading.Thread(target=send, args=(n,), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    time.sleep(3)  # its backlog is there
    yield statuses
    ended.set()


def time_pass(target: Target) -> float:
    """Return the seconds of one pass of a full page, with all that goes on beside it."""
    with target.client(INNOCENT_KEY) as client:
        answer = client.post("/npz/embeddings", json=images(image(*A4, seed=4)))
    assert answer.status_code == 200, answer.text
    (milliseconds,) = re.findall(r"model;dur=([\d.]+)", answer.headers["server-timing"])
    return float(milliseconds) / 1000


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_nobody_elses_wait(tmp_path: Path, kind: str) -> None:
    """While one key floods, another one's query takes two passes at most, and its page four."""
    with attacked(tmp_path) as target, flooded(target, FLOODS[kind]) as statuses:
        passes, queries, pages, pooled = [], [], [], []
        for _ in range(3):
            passes.append(time_pass(target))
            queries.append(target.time_query())
            pages.append(target.time_page())
            started = time.monotonic()
            with target.client(INNOCENT_KEY) as client:
                body = {**texts("a pooled query is a query"), "pool_factor": 2}
                assert client.post("/npz/embeddings", json=body).status_code == 200
            pooled.append(time.monotonic() - started)
        one = max(passes)
        assert statistics.median(queries) <= 2 * one + SLACK, (queries, passes)
        assert statistics.median(pooled) <= 2 * one + SLACK, (pooled, passes)
        assert statistics.median(pages) <= 4 * one + SLACK, (pages, passes)
        assert set(statuses) <= DOCUMENTED
        target.check_alive(budget=BUDGET)
        target.process.popen.kill()  # what is in line would take minutes


def test_keys_share_the_queue(tmp_path: Path) -> None:
    """A key that has filled the queue gets a 503; another key's request is accepted."""
    limit = {"PAGEVEC_MAX_QUEUED_INPUTS": "24"}
    with attacked(tmp_path, **limit) as target:
        with flooded(target, [images(*[image(*A4, seed=5)] * 12)], callers=4) as statuses:
            assert target.time_page() < 60
            assert target.time_query() < 60
            assert 503 in statuses
        target.process.popen.kill()
