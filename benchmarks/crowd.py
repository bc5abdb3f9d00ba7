"""Many callers at once, half queries, half pages: is every answer the caller's own?"""

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks import data
from benchmarks.machine import summarize_latency
from benchmarks.models import MODEL, name_model
from benchmarks.report import Measurement, Table, make_command, number_option
from benchmarks.services import serve_pagevec
from pagevec.types import MultiVector
from pagevec.wire.decode import decode_npz

_HEALTH_EVERY = 0.02  # seconds
_PAGES_EACH = 2
_TOLERANCE = 1e-4


def measure(checkpoint: Path, callers: int, rounds: int) -> Measurement:
    """Let many callers ask at once, half of them queries, half of them pages, two at a time.

    Every answer is compared with the one that its input got alone.
    """
    with serve_pagevec(checkpoint) as service, service.client() as http:
        crowd = Crowd(http, data.make_pages(6), data.make_texts(16))
        crowd.run(callers, rounds)
    latencies = {kind: summarize_latency(taken) for kind, taken in crowd.seconds.items()}
    figures = {
        "requests": latencies["text"]["requests"] + latencies["image"]["requests"],
        "wrong answers": crowd.wrong_answers,
        "forward pass of a page p50 ms": latencies["forward"]["p50_ms"],
        "query p50 ms": latencies["text"]["p50_ms"],
        "query p95 ms": latencies["text"]["p95_ms"],
        "health p50 ms": latencies["health"]["p50_ms"],
        "health p99 ms": latencies["health"]["p99_ms"],
    }
    rows = [{"name": name, "value": round(value, 1)} for name, value in figures.items()]
    return Measurement(
        "crowd",
        {"model": name_model(checkpoint), "callers": callers},
        {"rows": Table({f"{callers} callers": "name", "": "value:g"}, rows)},
    )


class Crowd:
    """Callers of one service, each with its own inputs; every second one asks queries.

    Attributes:
        seconds: of `text` and `image` requests, of `health`, and of a page's `forward` pass.
        wrong_answers: inputs whose vectors differ from those that they got alone.
    """

    def __init__(self, http: httpx.Client, pages: list[bytes], queries: list[str]) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.wrong_answers = 0
        self._http = http
        self._inputs = {"image": data.encode_base64(pages), "text": queries}
        self._expected: dict[str, list[MultiVector]] = {
            kind: [self._ask(kind, [index])[0][0] for index in range(len(inputs))]
            for kind, inputs in self._inputs.items()
        }

    def run(self, callers: int, rounds: int) -> None:
        """Let `callers` ask `rounds` times each, and ask for /health meanwhile."""
        with ThreadPoolExecutor(callers) as pool:
            calls = [pool.submit(self._call, number, rounds) for number in range(callers)]
            while not all(call.done() for call in calls):
                started = time.perf_counter()
                self._http.get("/health").raise_for_status()
                self.seconds["health"].append(time.perf_counter() - started)
                time.sleep(_HEALTH_EVERY)
        for call in calls:
            call.result()

    def _call(self, number: int, rounds: int) -> None:
        kind, count = ("text", 1) if number % 2 else ("image", _PAGES_EACH)
        for turn in range(rounds):
            chosen = [(number + turn + i) % len(self._inputs[kind]) for i in range(count)]
            started = time.perf_counter()
            vectors, forward = self._ask(kind, chosen)
            self.seconds[kind].append(time.perf_counter() - started)
            if kind == "image":
                self.seconds["forward"].append(forward / count)
            for index, got in zip(chosen, vectors, strict=True):
                expected = self._expected[kind][index]
                same = got.shape == expected.shape and np.abs(got - expected).max() <= _TOLERANCE
                self.wrong_answers += not same

    def _ask(self, kind: str, chosen: list[int]) -> tuple[list[MultiVector], float]:
        """Return the vectors of the inputs at these positions, and the seconds of their passes."""
        body = {"input_type": kind, "inputs": [self._inputs[kind][index] for index in chosen]}
        response = self._http.post("/npz/embeddings", json=body).raise_for_status()
        timings = response.headers["server-timing"].split(",")
        milliseconds = dict(part.strip().split(";dur=") for part in timings)
        return decode_npz(response.content), float(milliseconds["model"]) / 1000


main = make_command(
    measure,
    MODEL,
    number_option("--callers", 64, "Callers at the same time."),
    number_option("--rounds", 3, "Requests of each caller."),
)

if __name__ == "__main__":
    main()
