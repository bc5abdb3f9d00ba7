"""The whole engine: in this process, over HTTP, and beside its peers."""

import importlib.util
import statistics
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks import data, peers
from benchmarks.engine import embed_repeatedly
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.stages import Found, attempt, collect_errors
from benchmarks.machine import summarize_latency, time_for
from benchmarks.models import make_settings
from benchmarks.report import LATENCY, Row, Table
from benchmarks.services import Load, put_under_load, serve_pagevec
from pagevec.engine.models.registry import bundled_checkpoint
from pagevec.images import read_image

_LEAST_SHARE = 0.9
_REQUEST = 8  # pages
_CLIENTS = 8
_REQUESTS = 48
_SECONDS = 6.0
_PEER_PAGES, _PEER_ROUNDS = 24, 2
_ROOM = 4 * 10**9  # bytes for activations, where memory is short
_FITS = 256  # tokens, in a dry run
_COLUMNS = {
    "passes at once": "threads",
    "what": "what",
    "pages/s": "pages_per_second:.2f",
    "of the engine's": "share:.1%",
    "the device is busy": "busy:.1%",
    **LATENCY,
}


def measure_service(bench: Bench) -> Found:
    """How much of the engine's speed arrives over HTTP, with one pass at once and with two."""
    rows: list[Row] = []
    for threads in bench.within_time(bench.pick((1, 2), (1,))):
        engine = attempt(
            {"threads": threads, "what": "engine"}, partial(_measure_engine, bench, threads)
        )
        bench.free()
        served = attempt(
            {"threads": threads, "what": "over HTTP, npz"},
            partial(_measure_http, bench, threads, engine.get("pages_per_second")),
        )
        rows += [engine, served]
    shares = [row["share"] for row in rows if row.get("share")]
    faults = collect_errors(rows, "what")
    if not bench.emulated and shares and max(shares) < _LEAST_SHARE:
        faults.append(f"HTTP reaches {max(shares):.0%} of the engine's speed, not 90 %")
    unable = ["the service on the device: it is another process, and ran on the CPU"]
    note = (
        f"Files of A4 pages in, vectors out; {_REQUEST} pages in a request, {_CLIENTS} requests at "
        "once."
    )
    return Found(
        {"service": Table(_COLUMNS, rows, note=note)}, faults, unable if bench.emulated else ()
    )


def _measure_engine(bench: Bench, threads: int) -> Row:
    settings = make_settings(bundled_checkpoint(), "cuda", model_threads=threads)
    request = [read_image(file) for file in bench.files]
    requests = bench.pick(_REQUESTS, 1)
    with bench.run_engine(settings, bench.backend) as engine:

        def run() -> None:
            deque(embed_repeatedly(engine, request, requests), maxlen=0)

        run()
        before = engine.health().busy_seconds
        taken = time_for(bench.pick(_SECONDS, 0.0), run)
        busy = engine.health().busy_seconds - before
    return {
        "pages_per_second": len(request) * requests / statistics.median(taken),
        "busy": busy / sum(taken),
    }


def _measure_http(bench: Bench, threads: int, of_engine: float | None) -> Row:
    bodies = data.make_bodies("image", data.encode_base64(bench.files), len(bench.files))
    clients, requests = bench.pick((_CLIENTS, _REQUESTS), (1, 1))
    load = Load("pages", bodies, len(bench.files), clients, requests)
    device = bench.pick("cuda", "cpu")
    with serve_pagevec(bench.checkpoint, device, model_threads=threads) as service:
        put_under_load(service, "/npz/embeddings", load)
        rounds = [put_under_load(service, "/npz/embeddings", load) for _ in range(bench.pick(2, 1))]
    rate = statistics.median(one.inputs_per_second for one in rounds)
    return {
        "pages_per_second": rate,
        "share": rate / of_engine if of_engine else None,
        **summarize_latency([seconds for one in rounds for seconds in one.latencies]),
    }


def compare_peers(bench: Bench) -> Found:
    """How fast are the first version of a service, colpali-engine, and what else is installed."""
    pages = data.make_pages(bench.pick(_PEER_PAGES, 2), bench.page_size)
    bench.free()
    with bench.loading_first():
        report = peers.compare(bench.checkpoint, "cuda", pages, bench.pick(_PEER_ROUNDS, 1))
    bench.free()
    tables = {name: replace(one, note=report.remark) for name, one in report.tables.items()}
    has_flash = importlib.util.find_spec("flash_attn") is not None
    return Found(tables, unable=[] if has_flash else ["flash-attn: not installed"])


def climb_down(bench: Bench) -> Found:
    """Does the start find the batch that fits where the budget is far above the memory."""
    limited = _limit_memory(bench)
    settings = make_settings(bundled_checkpoint(), "cuda", batch_tokens=bench.pick(131_072, 1024))
    images = data.make_images(bench.pick(8, 2), bench.page_size)
    try:
        with bench.run_engine(settings, limited) as engine:
            budget = engine.health().batch_tokens
            answered = engine.embed_images(images * 4).result().vectors
            state = engine.health().state
    finally:
        if not bench.emulated:
            torch.cuda.set_per_process_memory_fraction(1.0)
        bench.free()
    row = {
        "asked": settings.batch_tokens,
        "fits": budget,
        "pages": len(answered),
        "state": state,
    }
    columns = {"tokens asked for": "asked", "fit": "fits", "pages answered": "pages", "": "state"}
    faults = []
    if budget >= (settings.batch_tokens or 0):
        faults.append("the memory was never short: nothing was found out")
    unable = ["the device's own errors: one was raised in their place"] if bench.emulated else []
    return Found({"memory": Table(columns, [row], words=0)}, faults, unable)


def _limit_memory(bench: Bench) -> Any:
    """Leave little memory beside the weights; return the backend that is short of it."""
    if bench.emulated:
        return _Short(bench.backend)
    backend = bench.backend
    bench.free()
    total = torch.cuda.get_device_properties(0).total_memory
    fraction = (torch.cuda.memory_reserved() + _ROOM) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction))
    return backend


class _Short:
    """A backend whose device has room for few tokens."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def forward(self, batch: list[Any]) -> list[Any]:
        if len(batch) > 1 and sum(one.tokens for one in batch) > _FITS:
            raise torch.OutOfMemoryError("CUDA out of memory. (of a dry run)")
        vectors: list[Any] = self._backend.forward(batch)
        return vectors
