"""The comparison over HTTP: pagevec and the loops by turns, never two at work."""

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks import inputs
from benchmarks.answers import largest_difference
from benchmarks.load import Load, Seen, run_load, watch
from benchmarks.machine import machine
from benchmarks.models import name_of
from benchmarks.report import Latency, Rate, Report, Row
from benchmarks.servers import Server, pagevec, plain_loop
from pagevec.types import InputType

_PLAIN = "plain loop, JSON"
_QUERIES_ALONE = 30
Rounds = dict[tuple[str, str], list[Seen]]


def compare(model: Path, pages: int, texts: int, rounds: int) -> Report:
    """Measure both services on `model`, each round with so many pages and texts.

    Raises:
        ServerFailed, AnswersDiffer, httpx.HTTPError: there is nothing to compare.
    """
    loads = [_pages(pages), _texts(texts)]
    with plain_loop(model) as plain, plain_loop(model, lean=True) as lean, pagevec(model) as ours:
        bodies = [body for load in loads for body in load.bodies]
        # This warms them up, too.
        difference = max(largest_difference(other, ours, bodies) for other in (plain, lean))
        services = {
            _PLAIN: (plain, "/embeddings"),
            "lean loop, JSON": (lean, "/embeddings"),
            "pagevec, JSON": (ours, "/json/embeddings"),
            "pagevec, npz": (ours, "/npz/embeddings"),
        }
        seen = _take_turns(services, loads, rounds)
        longer = replace(loads[0], requests=loads[0].requests * rounds)
        rows = [*_rows(seen), *_beside_pages(ours, longer)]
    setup = {"model": name_of(model), "pages": pages, "texts": texts, "rounds": rounds}
    return Report(machine(), setup, difference, rows)


def _take_turns(services: dict[str, tuple[Server, str]], loads: list[Load], rounds: int) -> Rounds:
    seen: Rounds = {(load.name, name): [] for load in loads for name in services}
    for _ in range(rounds):
        for load in loads:
            for name, (server, path) in services.items():
                seen[load.name, name].append(run_load(server, path, load))
    return seen


def _pages(count: int) -> Load:
    pages = inputs.as_base64(inputs.make_pages(min(8, count)))
    return _load("pages", "image", pages, count, batch=min(4, count), clients=2)


def _texts(count: int) -> Load:
    texts = inputs.make_texts(min(64, count))
    return _load("texts", "text", texts, count, batch=min(16, count), clients=4)


def _load(
    name: str, kind: InputType, different: list[str], count: int, *, batch: int, clients: int
) -> Load:
    requests = -(-count // batch)
    bodies = inputs.bodies(kind, different, batch)
    return Load(name, bodies, batch, min(clients, requests), requests)


def _rows(seen: Rounds) -> Iterator[Row]:
    for (load, service), rounds in seen.items():
        latencies = [seconds for one in rounds for seconds in one.latencies]
        rate = _rate(rounds, seen[load, _PLAIN])
        yield Row(load, service, Latency.of(latencies), rate)


def _rate(rounds: list[Seen], plain: list[Seen]) -> Rate:
    rates = [one.inputs_per_second for one in rounds]
    ratios = [rate / other.inputs_per_second for rate, other in zip(rates, plain, strict=True)]
    return Rate(
        median=statistics.median(rates),
        of_rounds=rates,
        ratio=statistics.median(ratios),
        bytes_each=sum(one.received for one in rounds) / sum(one.inputs for one in rounds),
    )


def _beside_pages(ours: Server, pages: Load) -> Iterator[Row]:
    """Measure single queries, alone and beside page batches, and /health beside them."""
    [query] = inputs.bodies("text", inputs.make_texts(1), 1)
    with ours.client() as http, ThreadPoolExecutor() as pool:

        def ask() -> None:
            http.post("/npz/embeddings", content=query).raise_for_status()

        def look() -> None:
            http.get("/health").raise_for_status()

        left = iter(range(_QUERIES_ALONE))
        alone = watch(ask, lambda: next(left, None) is None)
        busy = pool.submit(run_load, ours, "/npz/embeddings", pages)
        asked, looked = (pool.submit(watch, probe, busy.done) for probe in (ask, look))
        yield Row("a query, nothing else", "pagevec", Latency.of(alone))
        yield Row("a query beside pages", "pagevec", Latency.of(asked.result()))
        yield Row("/health beside pages", "pagevec", Latency.of(looked.result()))
        busy.result()
