"""What a running service achieves: throughput of pages and texts, latency of queries."""

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import numpy as np

from pagevec.client import Client
from pagevec.samples import make_png

TEXTS_EACH = 16
_MEAN_PAUSE = 0.1  # seconds between queries
_QUERIES_AT_ONCE = 32
_BLOCK = 24  # pixels: side of the blocks on a page, about the height of a line of text
_INK = 0.3  # share of dark blocks


@dataclass(frozen=True)
class Phase:
    """What was measured under one load.

    Attributes:
        name: what was sent.
        inputs: pages, texts or queries that were embedded.
        seconds: from the first request to the last answer.
        latencies: seconds of each request.
    """

    name: str
    inputs: int
    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        """Inputs embedded per second."""
        return self.inputs / self.seconds

    def percentile(self, share: float) -> float:
        """Return the milliseconds within which `share` percent of the requests were answered."""
        return float(np.percentile(self.latencies, share) * 1000)


class Bench:
    """Puts a service under load, in phases that are bounded in time and in requests.

    Args:
        client: asks the service; it should neither retry nor resize pages.
        seconds: how long each phase sends requests.
        requests: how many requests each phase sends, at most.
        callers: requests of pages or texts that are open at the same time.
        size: width and height of a page, in pixels.
    """

    def __init__(
        self, client: Client, *, seconds: float, requests: int, callers: int, size: tuple[int, int]
    ) -> None:
        self._client = client
        self._seconds = seconds
        self._requests = requests
        self._callers = callers
        self._make_page = PageMaker(*size)

    def run(self) -> Iterator[Phase]:
        """Yield each phase as it ends: queries, texts, pages, queries beside pages.

        Raises:
            PagevecError: one of `pagevec.client.faults`: a request failed.
        """
        for warm_up in (self._embed_page, self._embed_texts, self._embed_query):
            warm_up()
        yield self._sample_queries("queries alone", lambda: False)
        yield self._put_under_load("texts", self._embed_texts, TEXTS_EACH)
        yield self._put_under_load("pages", self._embed_page, 1)
        with ThreadPoolExecutor(1) as pool:
            pages = pool.submit(self._put_under_load, "pages", self._embed_page, 1)
            yield self._sample_queries("queries beside pages", pages.done)
            pages.result()

    def _embed_page(self) -> None:
        self._client.embed_images([self._make_page()])

    def _embed_texts(self) -> None:
        self._client.embed_texts([_make_question() for _ in range(TEXTS_EACH)])

    def _embed_query(self) -> None:
        self._client.embed_query(_make_question())

    def _put_under_load(self, name: str, ask: Callable[[], None], inputs: int) -> Phase:
        """Let all callers ask, each one again as soon as it has its answer."""
        started, latencies = time.perf_counter(), list[float]()
        left, lock = self._requests, threading.Lock()

        def call() -> None:
            nonlocal left
            while time.perf_counter() < started + self._seconds:
                with lock:
                    if not left:
                        return
                    left -= 1
                latencies.append(_time(ask))

        with ThreadPoolExecutor(self._callers) as pool:
            callers = [pool.submit(call) for _ in range(self._callers)]
        for caller in callers:
            caller.result()
        taken = time.perf_counter() - started
        return Phase(name, inputs * len(latencies), taken, latencies)

    def _sample_queries(self, name: str, is_over: Callable[[], bool]) -> Phase:
        """Ask at random times, without waiting for the last answer.

        A caller that waited would always ask just after a batch has begun.
        """
        pauses, asked = np.random.default_rng(), list[Future[float]]()
        started = time.perf_counter()
        end = started + self._seconds
        with ThreadPoolExecutor(_QUERIES_AT_ONCE) as pool:
            while not asked or (
                time.perf_counter() < end and len(asked) < self._requests and not is_over()
            ):
                time.sleep(pauses.exponential(_MEAN_PAUSE))
                asked.append(pool.submit(_time, self._embed_query, time.perf_counter()))
        latencies = [one.result() for one in asked]
        return Phase(name, len(asked), time.perf_counter() - started, latencies)


class PageMaker:
    """Makes RGB pages as PNG files without Pillow, each one different, so that none is cached.

    All share their upper part, which is drawn and compressed once; the last blocks differ.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._strip = min(_BLOCK, height)
        self._compressor = zlib.compressobj(1)
        rows = _draw_blocks(width, height - self._strip, np.random.default_rng(0))
        self._start = self._compressor.compress(rows) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def __call__(self) -> bytes:
        """Return another page."""
        compressor = self._compressor.copy()
        strip = _draw_blocks(self._width, self._strip, np.random.default_rng())
        pixels = self._start + compressor.compress(strip) + compressor.flush()
        return make_png(self._width, self._height, 8, 2, pixels)  # 8 bits, RGB


def _draw_blocks(width: int, height: int, random: np.random.Generator) -> bytes:
    """Return rows of a PNG, unfiltered: dark blocks on white, RGB."""
    blocks = random.random((-(-height // _BLOCK), -(-width // _BLOCK), 1)) < _INK
    blocks[:1, :1] = True  # so that no page is white
    pixels = np.where(blocks, random.integers(0, 90, (*blocks.shape[:2], 3)), 255).astype(np.uint8)
    large = pixels.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[:height, :width]
    filters = np.zeros((height, 1), np.uint8)
    return np.concatenate([filters, large.reshape(height, 3 * width)], axis=1).tobytes()


def _make_question() -> str:
    """Return a question that was never asked before."""
    return f"which route carried the passengers of ticket {uuid4().hex[:8]}?"


def _time(ask: Callable[[], None], since: float | None = None) -> float:
    started = since or time.perf_counter()
    ask()
    return time.perf_counter() - started
