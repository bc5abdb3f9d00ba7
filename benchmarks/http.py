"""The service beside a plain loop around colpali-engine, over HTTP on the CPU."""

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import BenchmarkFailed, data
from benchmarks.machine import summarize_latency
from benchmarks.models import MODEL, name_model
from benchmarks.report import LATENCY, Measurement, Row, Table, make_command, number_option
from benchmarks.services import (
    Answers,
    Load,
    Service,
    put_under_load,
    sample_latency,
    serve_pagevec,
    serve_plain_loop,
)
from pagevec.types import InputType, MultiVector
from pagevec.wire.decode import decode_json, decode_npz

TOLERANCE = 1e-4
_COLUMNS = {
    "load": "load",
    "service": "service",
    "inputs/s": "inputs_per_second:.1f",
    "rounds": "rounds:.1f",
    "x plain loop": "ratio:.1f",
    **LATENCY,
    "kB each": "kb_each:.0f",
}
_PLAIN = "plain loop, JSON"
_QUERIES_ALONE = 30
_PADDING_LENGTH = 0.5  # rows are of unit length; a padding row is nearly zero
Rounds = dict[tuple[str, str], list[Answers]]


class AnswersDiffer(BenchmarkFailed):
    """The services gave different vectors, so that their throughput is not comparable."""


def measure(checkpoint: Path, pages: int, texts: int, rounds: int) -> Measurement:
    """Compare pagevec with the plain loop over HTTP on the CPU, in float32.

    The plain loop is colpali-engine in a FastAPI endpoint, as people write it first. All services
    run on loopback, take turns, and must give equal answers.
    """
    loads = [_load_pages(pages), _load_texts(texts)]
    with (
        serve_plain_loop(checkpoint) as plain,
        serve_plain_loop(checkpoint, lean=True) as lean,
        serve_pagevec(checkpoint) as ours,
    ):
        bodies = [body for load in loads for body in load.bodies]
        # This warms them up as well.
        difference = max(_compare(loop, ours, body) for loop in (plain, lean) for body in bodies)
        services = {
            _PLAIN: (plain, "/embeddings"),
            "lean loop, JSON": (lean, "/embeddings"),
            "pagevec, JSON": (ours, "/json/embeddings"),
            "pagevec, npz": (ours, "/npz/embeddings"),
        }
        answers = _take_turns(services, loads, rounds)
        longer = replace(loads[0], requests=loads[0].requests * rounds)
        rows = [*_throughput_rows(answers), *_query_rows(ours, longer)]
    return Measurement(
        "http",
        {"model": name_model(checkpoint), "pages": pages, "texts": texts, "rounds": rounds},
        {"rows": Table(_COLUMNS, rows, words=2)},
        {"largest_difference": difference},
        f"answers differ by {difference:.0e} at most, {TOLERANCE:.0e} allowed",
    )


def largest_difference(got: list[MultiVector], expected: list[MultiVector]) -> float:
    """Return the largest difference of any component; arrays are (vectors, dim).

    Raises:
        AnswersDiffer: it is above the tolerance, or shapes differ.
    """
    if [one.shape for one in got] != [one.shape for one in expected]:
        raise AnswersDiffer("pagevec and the plain loop answer with different shapes")
    pairs = zip(got, expected, strict=True)
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    if not difference <= TOLERANCE:
        raise AnswersDiffer(f"pagevec and the plain loop differ by {difference:.1e}")
    return difference


def _compare(loop: Service, ours: Service, body: bytes) -> float:
    padded = decode_json(_ask(loop, "/embeddings", body))
    expected = [one[np.linalg.norm(one, axis=1) > _PADDING_LENGTH] for one in padded]
    return max(
        largest_difference(decode_json(_ask(ours, "/json/embeddings", body)), expected),
        largest_difference(decode_npz(_ask(ours, "/npz/embeddings", body)), expected),
    )


def _ask(service: Service, path: str, body: bytes) -> bytes:
    with service.client() as http:
        return http.post(path, content=body).raise_for_status().content


def _take_turns(services: dict[str, tuple[Service, str]], loads: list[Load], rounds: int) -> Rounds:
    answers: Rounds = {(load.name, name): [] for load in loads for name in services}
    for _ in range(rounds):
        for load in loads:
            for name, (service, path) in services.items():
                answers[load.name, name].append(put_under_load(service, path, load))
    return answers


def _load_pages(count: int) -> Load:
    pages = data.encode_base64(data.make_pages(min(8, count)))
    return _make_load("pages", "image", pages, count, batch=min(4, count), clients=2)


def _load_texts(count: int) -> Load:
    texts = data.make_texts(min(64, count))
    return _make_load("texts", "text", texts, count, batch=min(16, count), clients=4)


def _make_load(
    name: str, kind: InputType, inputs: list[str], count: int, *, batch: int, clients: int
) -> Load:
    requests = -(-count // batch)
    bodies = data.make_bodies(kind, inputs, batch)
    return Load(name, bodies, batch, min(clients, requests), requests)


def _throughput_rows(answers: Rounds) -> Iterator[Row]:
    for (load, service), rounds in answers.items():
        rates = [one.inputs_per_second for one in rounds]
        plain = [one.inputs_per_second for one in answers[load, _PLAIN]]
        ratios = [rate / other for rate, other in zip(rates, plain, strict=True)]
        yield {
            "load": load,
            "service": service,
            "inputs_per_second": statistics.median(rates),
            "rounds": rates,
            "ratio": statistics.median(ratios),
            "kb_each": sum(one.bytes for one in rounds) / sum(one.inputs for one in rounds) / 1000,
            **summarize_latency([seconds for one in rounds for seconds in one.latencies]),
        }


def _query_rows(ours: Service, pages: Load) -> Iterator[Row]:
    """Measure single queries, alone and beside batches of pages, and /health beside them."""
    [query] = data.make_bodies("text", data.make_texts(1), 1)
    with ours.client() as http, ThreadPoolExecutor() as pool:

        def ask() -> None:
            http.post("/npz/embeddings", content=query).raise_for_status()

        def check_health() -> None:
            http.get("/health").raise_for_status()

        left = iter(range(_QUERIES_ALONE))
        alone = sample_latency(ask, lambda: next(left, None) is None)
        busy = pool.submit(put_under_load, ours, "/npz/embeddings", pages)
        beside = [pool.submit(sample_latency, call, busy.done) for call in (ask, check_health)]
        seconds = {
            "a query, nothing else": alone,
            "a query beside pages": beside[0].result(),
            "/health beside pages": beside[1].result(),
        }
        busy.result()
    for load, taken in seconds.items():
        yield {"load": load, "service": "pagevec", **summarize_latency(taken)}


main = make_command(
    measure,
    MODEL,
    number_option("--pages", 16, "Pages in a round."),
    number_option("--texts", 128, "Texts in a round."),
    number_option("--rounds", 3, "The figures are medians of the rounds."),
)

if __name__ == "__main__":
    main()
