"""Many callers at once, pages and queries mixed: is every answer one's own, who waits how long?"""

import asyncio
import base64
import time
from dataclasses import dataclass, field

import httpx
import numpy as np

from benchmarks.output import table
from pagevec.types import MultiVector
from pagevec.wire.decode import decode_npz

_TIMEOUT = httpx.Timeout(600.0)
_HEALTH_EVERY = 0.02  # seconds


@dataclass
class CrowdFigures:
    """What was seen, times in seconds."""

    query_seconds: list[float] = field(default_factory=list)
    page_seconds: list[float] = field(default_factory=list)
    health_seconds: list[float] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    wrong_answers: int = 0

    def as_json(self) -> dict[str, float]:
        """Return the figures, times in milliseconds."""
        return {
            "requests": len(self.query_seconds) + len(self.page_seconds),
            "wrong_answers": self.wrong_answers,
            "forward_pass_of_a_page_p50_ms": _percentile(self.forward_seconds, 50),
            "query_p50_ms": _percentile(self.query_seconds, 50),
            "query_p95_ms": _percentile(self.query_seconds, 95),
            "health_p50_ms": _percentile(self.health_seconds, 50),
            "health_p99_ms": _percentile(self.health_seconds, 99),
        }

    def markdown(self, callers: int) -> str:
        """Return the figures as a table."""
        figures = self.as_json().items()
        rows = [(name.replace("_", " "), f"{value:g}") for name, value in figures]
        return table([f"{callers} callers", ""], rows)


class Crowd:
    """Callers of one service, each with its own inputs; half of them ask queries."""

    def __init__(self, url: str, key: str, pages: list[bytes], queries: list[str]) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._inputs = {
            "image": [base64.b64encode(page).decode() for page in pages],
            "text": queries,
        }
        self._expected: dict[tuple[str, int], MultiVector] = {}
        self._figures = CrowdFigures()

    async def run(self, callers: int, rounds: int, pages_each: int) -> CrowdFigures:
        """Let `callers` ask `rounds` times each, pages in batches of `pages_each`."""
        async with self._http:
            await self._ask_alone()
            watch = asyncio.create_task(self._watch_health())
            await asyncio.gather(*(self._caller(n, rounds, pages_each) for n in range(callers)))
            watch.cancel()
        return self._figures

    async def _ask_alone(self) -> None:
        for kind, inputs in self._inputs.items():
            for index in range(len(inputs)):
                [self._expected[kind, index]], _ = await self._ask(kind, [index])

    async def _caller(self, number: int, rounds: int, pages_each: int) -> None:
        kind, count = ("text", 1) if number % 2 else ("image", pages_each)
        seen = self._figures.query_seconds if number % 2 else self._figures.page_seconds
        for turn in range(rounds):
            chosen = [(number + turn + i) % len(self._inputs[kind]) for i in range(count)]
            started = time.perf_counter()
            vectors, forward = await self._ask(kind, chosen)
            seen.append(time.perf_counter() - started)
            if kind == "image":
                self._figures.forward_seconds.append(forward / count)
            self._count_wrong(kind, chosen, vectors)

    def _count_wrong(self, kind: str, chosen: list[int], vectors: list[MultiVector]) -> None:
        for index, got in zip(chosen, vectors, strict=True):
            want = self._expected[kind, index]
            if got.shape != want.shape or np.abs(got - want).max() > 1e-4:
                self._figures.wrong_answers += 1

    async def _ask(self, kind: str, chosen: list[int]) -> tuple[list[MultiVector], float]:
        body = {"input_type": kind, "inputs": [self._inputs[kind][index] for index in chosen]}
        response = await self._http.post("/npz/embeddings", json=body)
        response.raise_for_status()
        timing = dict(
            part.strip().split(";dur=") for part in response.headers["server-timing"].split(",")
        )
        return decode_npz(response.content), float(timing["model"]) / 1000

    async def _watch_health(self) -> None:
        while True:
            started = time.perf_counter()
            (await self._http.get("/health")).raise_for_status()
            self._figures.health_seconds.append(time.perf_counter() - started)
            await asyncio.sleep(_HEALTH_EVERY)


def _percentile(seconds: list[float], share: float) -> float:
    return round(float(np.percentile(seconds, share)) * 1000, 1)
