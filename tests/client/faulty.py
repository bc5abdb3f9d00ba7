"""A small real HTTP service for tests that answers, or fails, as each test asks."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from conftest import make_settings
from pagevec.client.base import BaseClient
from pagevec.server.run import address_of, listen
from pagevec.wire.encode import encode

Answer = Callable[[list[str]], Response]
DIM = 8


def vectors_of(text: str) -> np.ndarray:
    """A multi-vector of the number that `text` is, in one direction: float32 (1 to 3, DIM)."""
    number = int(text)
    direction = np.zeros(DIM, np.float32)
    direction[:2] = np.cos(number), np.sin(number)
    return np.tile(direction, (1 + number % 3, 1))


def right(inputs: list[str]) -> Response:
    return Response(encode([vectors_of(one) for one in inputs], "text", "float32", "npz"))


def status(code: int, **headers: str) -> Answer:
    return lambda inputs: Response("no", code, {k.replace("_", "-"): v for k, v in headers.items()})


def error(code: int, word: str, index: int | None = None) -> Answer:
    return lambda inputs: JSONResponse({"error": "a sentence", "code": word, "index": index}, code)


def see(url: str, code: int = 303) -> Answer:
    return lambda inputs: RedirectResponse(url, code)


def broken(inputs: list[str]) -> Response:
    """Announce 100 bytes, and close the connection after 4."""

    def some() -> Iterator[bytes]:
        yield b"some"
        raise ConnectionResetError

    return StreamingResponse(some(), headers={"content-length": "100"})


def dripping(pause: float) -> Answer:
    """Send a right answer byte by byte, with a pause before each."""

    def answer(inputs: list[str]) -> Response:
        def drops() -> Iterator[bytes]:
            for byte in right(inputs).body:
                time.sleep(pause)
                yield bytes([byte])

        return StreamingResponse(drops())

    return answer


def slow(seconds: float) -> Answer:
    def answer(inputs: list[str]) -> Response:
        time.sleep(seconds)
        return right(inputs)

    return answer


def same(inputs: list[str]) -> Response:
    """Answer any input with the vectors of 1."""
    return right(["1"] * len(inputs))


def at_most(count: int) -> Answer:
    return lambda inputs: right(inputs) if len(inputs) <= count else status(413)(inputs)


def with_tokens(tokens: list[str], spans: list[tuple[int, int]]) -> Answer:
    """Answer one input as `right` does, with these tokens and their spans in the text."""

    def answer(inputs: list[str]) -> Response:
        [text], file = inputs, BytesIO()
        arrays = {"tokens_0": np.array(tokens), "spans_0": np.array(spans, np.int32)}
        kind = np.array("text")
        np.savez(file, count=np.array(1), input_type=kind, emb_0=vectors_of(text), **arrays)
        return Response(file.getvalue())

    return answer


@dataclass
class Asked:
    """A request as it arrived.

    Attributes:
        method: HTTP method.
        path: without host and query.
        key: Authorization header.
        inputs: of its body.
        size: bytes of its body.
        options: the other fields of its body.
    """

    method: str
    path: str
    key: str | None
    inputs: list[str]
    size: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Faulty:
    """Gives `answers` one after the other, then `always`; records what it was asked.

    Attributes:
        url: its address.
        answers: the next answers.
        always: the answer once these are used up.
        info: answer of /info; None is a 404.
        asked: all requests so far.
        most: the most requests that were at work at the same time.
    """

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    always: Answer = right
    info: Any = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    most: int = 0
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def paths(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.asked]

    @property
    def posts(self) -> list[Asked]:
        return [one for one in self.asked if one.method == "POST"]

    def reset(self) -> "Faulty":
        self.answers, self.always, self.info, self.asked, self.most = [], right, {}, [], 0
        return self

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        options = json.loads(body) if body else {}
        inputs = options.pop("inputs", [])
        key = request.headers.get("authorization")
        if request.url.path.endswith("/info"):
            self.asked.append(Asked("GET", "/info", key, []))
            return status(404)([]) if self.info is None else JSONResponse(self.info)
        path = request.url.path
        self.asked.append(Asked(request.method, path, key, inputs, len(body), options))
        return await run_in_threadpool(self._answer, inputs)

    def _answer(self, inputs: list[str]) -> Response:
        with self._lock:
            self._busy += 1
            self.most = max(self.most, self._busy)
            answer = self.answers.pop(0) if self.answers else self.always
        try:
            return answer(inputs)
        finally:
            with self._lock:
                self._busy -= 1


@contextmanager
def serving(port: int = 0) -> Iterator[Faulty]:
    """Serve a `Faulty` on a port of loopback, a free one for 0, until the end of the block."""
    faulty = Faulty()
    app = Starlette(routes=[Route("/{path:path}", faulty.handle, methods=["GET", "POST"])])
    listener = listen(make_settings(port=port))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    faulty.url = address_of(listener)
    try:
        yield faulty
    finally:
        server.should_exit = True
        thread.join()


def numbers(count: int) -> list[str]:
    """Texts that `vectors_of` takes."""
    return [str(number) for number in range(count)]


def assert_answers(texts: list[str], vectors: list[np.ndarray]) -> None:
    """Each text has its own multi-vector, whole and in its place."""
    assert len(vectors) == len(texts)
    for text, one in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(one, vectors_of(text))


QUICK: dict[str, Any] = {"timeout": httpx.Timeout(5.0), "patience": 5.0}
"""Options of a client that gives up soon."""


def make_client(kind: type[BaseClient[Any]], url: Any, **options: Any) -> Any:
    return kind(url, **{"key": "the-key", **QUICK, **options})
