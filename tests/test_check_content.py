"""`pagevec check` against services that answer in the right form, with wrong vectors.

Each stands between the checks and a real service, over HTTP, and spoils the vectors of its answers.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import httpx
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from answering import Answering, answering
from conftest import KEY, Service
from pagevec.check import run_checks
from pagevec.wire.decode import decode_json, decode_npz

Vectors = list[NDArray[np.float32]]
Fault = Callable[[Vectors, str], Vectors]


@contextmanager
def spoiling(service: Service, fault: Fault) -> Iterator[str]:
    """Serve the answers of `service`, their vectors changed by `fault`."""
    upstream = httpx.Client(base_url=service.url, trust_env=False, timeout=60)

    class Handler(Answering):
        def do_GET(self) -> None:
            answer = upstream.get(self.path)
            self._send(answer, answer.content)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            passed_on = ("Authorization", "Accept")
            headers = {name: self.headers[name] for name in passed_on if name in self.headers}
            answer = upstream.post(self.path, content=body, headers=headers)
            content = answer.content
            if answer.status_code == 200:
                content = spoil(answer, fault, orjson.loads(body)["input_type"])
            self._send(answer, content)

        def _send(self, answer: httpx.Response, content: bytes) -> None:
            names = ("Content-Type", "WWW-Authenticate")
            kept = {name: answer.headers[name] for name in names if name in answer.headers}
            self.answer(answer.status_code, content, **kept)

    with upstream, answering(Handler) as url:
        yield url


def spoil(answer: httpx.Response, fault: Fault, kind: str) -> bytes:
    """Return the content of `answer` with `fault` in its vectors, in the same format."""
    if "json" in answer.headers["Content-Type"]:
        vectors = fault(decode_json(answer.content), kind)
        return orjson.dumps({"embeddings": [one.tolist() for one in vectors]})
    vectors = fault(decode_npz(answer.content), kind)
    file = BytesIO()
    arrays = {f"emb_{i}": one.astype(np.float32) for i, one in enumerate(vectors)}
    np.savez(file, count=np.array(len(vectors)), input_type=np.array(kind), **arrays)
    return file.getvalue()


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def noisy(vectors: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    noise = np.random.default_rng().normal(size=vectors.shape).astype(np.float32)
    return unit(vectors + share * unit(noise))


def equal_for_all(kind: str) -> Fault:
    constant = unit(np.random.default_rng(5).normal(size=(9, 128)).astype(np.float32))
    return lambda vectors, of: [constant for _ in vectors] if of == kind else vectors


def equal_within(vectors: Vectors, kind: str) -> Vectors:
    return [np.repeat(one[:1], len(one), axis=0) for one in vectors]


def only_in_batches(fault: Fault) -> Fault:
    return lambda vectors, kind: fault(vectors, kind) if len(vectors) > 1 else vectors


class MixesUp:
    """Gives an answer to whoever asks at the same time: what two requests wait for is swapped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Vectors] = []

    def __call__(self, vectors: Vectors, kind: str) -> Vectors:
        with self._lock:
            self._waiting.append(vectors)
        time.sleep(0.3)
        with self._lock:
            return self._waiting.pop()


def test_a_good_service(service: Service) -> None:
    """Through the same proxy, a service without a fault passes every check."""
    with spoiling(service, lambda vectors, kind: vectors) as url:
        failed = [outcome for outcome in run_checks(url, KEY) if not outcome[1]]
    assert failed == []


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        (
            equal_for_all("image"),
            "unlike pages are unlike",
            "nothing in common, and equal vectors",
        ),
        (
            equal_for_all("text"),
            "unlike texts are unlike",
            "nothing in common, and equal vectors",
        ),
        (equal_within, "unlike pages are unlike", "all vectors of image 0 are equal"),
        (
            lambda vectors, _: [noisy(one, 0.5) for one in vectors],
            "same input twice is alike",
            "text 0, sent twice, has other vectors",
        ),
        (
            only_in_batches(lambda vectors, _: vectors[::-1]),
            "batch equals single",
            "text 0 of a batch as npz got the vectors of text 4",
        ),
        (
            only_in_batches(lambda vectors, _: sorted(vectors, key=len)),
            "batch equals single",
            "got the vectors of text",
        ),
        (
            only_in_batches(
                lambda vectors, kind: vectors[::-1] if kind == "image" else vectors,
            ),
            "batch equals single",
            "image 0 of a batch as npz got the vectors of image 3",
        ),
        (
            only_in_batches(lambda vectors, _: [noisy(one, 0.3) for one in vectors]),
            "batch equals single",
            "text 0 of a batch as npz has other vectors",
        ),
        (
            only_in_batches(lambda vectors, _: vectors[:-1]),
            "batch equals single",
            "4 multi-vectors for 5 texts",
        ),
        (
            only_in_batches(lambda vectors, _: [one[: min(map(len, vectors))] for one in vectors]),
            "batch equals single",
            "vectors, then",
        ),
        (MixesUp(), "requests at once are kept apart", "got the vectors of text"),
        (
            lambda vectors, _: [one * 1.1 for one in vectors],
            "text in both formats",
            "text 0 of 2 has vectors that are not of unit length",
        ),
        (
            lambda vectors, _: [np.full_like(one, np.nan) for one in vectors],
            "image in both formats",
            "",
        ),
        (lambda vectors, _: [one[:0] for one in vectors], "text in both formats", ""),
    ],
)
def test_a_fault(fault: Fault, check: str, said: str, service: Service) -> None:
    """The check of that fault fails and says what is wrong; the form is still right."""
    with spoiling(service, fault) as url:
        outcomes = {name: (passed, detail) for name, passed, detail in run_checks(url, KEY)}
    passed, detail = outcomes[check]
    assert not passed, outcomes
    assert said in detail
    assert outcomes["key is accepted"][0]


def test_odd_answers() -> None:
    """Nothing that the service answers ends the checks: each has an outcome, without a secret."""

    class Odd(Answering):
        def do_GET(self) -> None:
            self.answer(200, b'[{"limits": {"max_inputs": 1e300}}]')

        do_POST = do_GET

    with answering(Odd) as url:
        outcomes = list(run_checks(url, "sesame-open"))
    assert len(outcomes) == 17
    by_status = ("alive", "ready", "key is accepted", "latency")
    assert not any(passed for name, passed, _ in outcomes if name not in by_status)
    assert "sesame" not in str(outcomes)
