"""The candidates beside the backend as it is: on the same pages, in turn."""

import importlib.util
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import candidates, launching
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.stages import Found, attempt, collect_errors
from benchmarks.machine import time_once
from benchmarks.models import compare_vectors
from benchmarks.report import Row, Table
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.models.capabilities import FP8_FROM

_PASSES = 4
_PAGES = 16
_QUERIES = 20
_ROUNDS = 3
_LEAST_COSINE = 0.999
_COLUMNS = {
    "candidate": "candidate",
    "pages/s": "pages_per_second:.2f",
    "as it is": "pages_as_it_is:.2f",
    "x": "pages_ratio:.3f",
    "a query ms": "query_ms:.2f",
    "as it was": "query_ms_as_it_is:.2f",
    "first pass s": "first_seconds:.1f",
    "mean cosine": "cosine:.5f",
}
Use = Callable[[PackedBackend], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Candidate:
    """A change of the packed backend.

    Attributes:
        name: in the table.
        use: yields a backend with the change, until the end of its block.
        threads: that run passes at the same time.
        cosine: that its vectors have at least, in the mean, with those of the backend as it is.
        compiled: whether it needs a compiler.
        fp8: whether it needs a card with FP8.
    """

    name: str
    use: Use
    threads: int = 1
    cosine: float = _LEAST_COSINE
    compiled: bool = False
    fp8: bool = False


def list_candidates(bench: Bench) -> list[Candidate]:
    """Return all candidates; in a dry run without compiler, graph and pinned memory."""
    make: candidates.Make = candidates.compile_for_any_length
    if bench.emulated:
        make = candidates.run_eagerly
    record = bench.pick(launching.record_graph, launching.record_nothing)
    transfers = bench.pick(launching.PINNED, launching.PAGEABLE)
    multiply = bench.pick(candidates.multiply_scaled, candidates.multiply_exactly)
    return [
        Candidate("passes overlapped", lambda one: _overlap(one, transfers), threads=2),
        Candidate("two threads, no lock", nullcontext, threads=2),
        Candidate("residual sums within products", candidates.add_within_products),
        Candidate(
            "a graph for a query",
            lambda one: nullcontext(launching.GraphedQueries(one, record)),
        ),
        Candidate(
            "rotary embedding, silu x up compiled",
            partial(candidates.fuse_elementwise, make=make),
            compiled=True,
        ),
        Candidate(
            "compiled, sums within products", partial(candidates.fuse_all, make=make), compiled=True
        ),
        Candidate(
            "compiled, sums within products, overlapped",
            partial(_fuse_and_overlap, make, transfers),
            threads=2,
            compiled=True,
        ),
        Candidate(
            "FP8, compiled quantiser",
            partial(candidates.use_fp8, make=make, multiply=multiply),
            cosine=0.98,
            compiled=True,
            fp8=True,
        ),
    ]


@contextmanager
def _overlap(backend: PackedBackend, transfers: launching.Transfers) -> Iterator[Any]:
    yield launching.OverlappedPasses(backend, transfers)


@contextmanager
def _fuse_and_overlap(
    make: candidates.Make, transfers: launching.Transfers, backend: PackedBackend
) -> Iterator[Any]:
    with candidates.fuse_all(backend, make), _overlap(backend, transfers) as overlapped:
        yield overlapped


def judge_candidates(bench: Bench) -> Found:
    """What does each change of the passes bring, beside them as they are."""
    chosen, unable = _choose(bench)
    rows = [
        attempt({"candidate": one.name}, partial(_judge, bench, one))
        for one in bench.within_time(chosen)
    ]
    note = (
        f"Medians of {bench.pick(_ROUNDS, 1)} rounds, in turn with the backend as it is: "
        f"{bench.pick(_PASSES, 2)} passes of {bench.pick(_PAGES, 2)} prepared "
        "pages; single queries."
    )
    faults = collect_errors(rows, "candidate")
    faults += [
        f"{one['candidate']}: mean cosine {one['cosine']:.4f} with the backend as it is"
        for one, candidate in zip(rows, chosen, strict=False)
        if "cosine" in one and not one["cosine"] >= candidate.cosine
    ]
    return Found({"candidates": Table(_COLUMNS, rows, note=note)}, faults, unable)


def _choose(bench: Bench) -> tuple[list[Candidate], list[str]]:
    """Return the candidates that this device and what is installed allow, and why not others."""
    chosen = list_candidates(bench)
    if bench.emulated:
        return chosen, ["compiled kernels, graphs, pinned memory: their arithmetic alone ran"]
    unable = []
    if torch.cuda.get_device_capability() < FP8_FROM:
        chosen = [one for one in chosen if not one.fp8]
        unable.append("FP8: the card has none")
    if importlib.util.find_spec("triton") is None:
        chosen = [one for one in chosen if not one.compiled]
        unable.append("what is compiled: triton is not installed")
    return chosen, unable


def _judge(bench: Bench, candidate: Candidate) -> Row:
    base = bench.backend
    batch, [query] = bench.pages(bench.pick(_PAGES, 2)), bench.queries(1)
    exact = base.forward(batch) + base.forward([query])
    with candidate.use(base) as changed:
        pinned = batch
        if isinstance(changed, launching.OverlappedPasses):
            pinned = [changed.pin_page(page) for page in batch]
        vectors: list[Any] = []

        def run_first() -> None:
            vectors.extend(changed.forward(pinned) + changed.forward([query]))

        first = time_once(run_first)
    taken: dict[str, list[float]] = {"pages": [], "query": [], "base pages": [], "base query": []}
    for _ in range(bench.pick(_ROUNDS, 1)):
        _time(bench, base, 1, batch, query, taken, "base ")
        with candidate.use(base) as changed:
            changed.forward(pinned[:1])  # what a block makes anew, it makes here
            changed.forward([query])
            _time(bench, changed, candidate.threads, pinned, query, taken, "")
    seconds = {name: statistics.median(each) for name, each in taken.items()}
    pages = len(batch) * bench.pick(_PASSES, 2)
    return {
        "pages_per_second": pages / seconds["pages"],
        "pages_as_it_is": pages / seconds["base pages"],
        "pages_ratio": seconds["base pages"] / seconds["pages"],
        "query_ms": 1000 * seconds["query"],
        "query_ms_as_it_is": 1000 * seconds["base query"],
        "first_seconds": first,
        "cosine": compare_vectors(vectors, exact).mean_cosine,
    }


def _time(
    bench: Bench,
    backend: Any,
    threads: int,
    batch: list[Any],
    query: Any,
    taken: dict[str, list[float]],
    prefix: str,
) -> None:
    forward = bench.in_any_thread(backend).forward
    passes, queries = bench.pick(_PASSES, 2), bench.pick(_QUERIES, 1)
    with ThreadPoolExecutor(threads) as pool:
        bench.synchronize()
        taken[f"{prefix}pages"].append(time_once(lambda: list(pool.map(forward, [batch] * passes))))
    bench.synchronize()
    taken[f"{prefix}query"].append(
        time_once(lambda: [forward([query]) for _ in range(queries)]) / queries
    )
