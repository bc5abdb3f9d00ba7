"""The engine by itself: by page size, by batch, as the work grows, and beside the roofline."""

import itertools
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks import data
from benchmarks.machine import time_for, time_once
from benchmarks.models import DEVICE, MODEL, make_settings, name_model, run_engine
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from benchmarks.roofline import measure_roofline
from pagevec.engine.api import Embedded
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend, read_hints
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.scheduler import batch_tokens
from pagevec.images import EncodedImage

IN_FLIGHT = 8
_MIB = 2**20
_DIFFERENT = 8  # pages; more are these again
# As the work grows: ten thousand pages of this size take minutes on two cores. Callers send a few
# at a time and let go of the answers, and the engine always has some to do.
_SMALL = data.SIZES["A8"]
_REQUEST = 10
# Few pages are done before a clock says much: they are sent again.
_SECONDS = 3.0
_BY_SIZE = {
    "page": "page",
    "tokens": "tokens",
    "pages": "pages",
    "pages/s": "pages_per_second:.2f",
    "tokens/s": "tokens_per_second:.0f",
    "ms a page": "page_ms:.1f",
    "forward ms": "forward_ms:.1f",
    "prepare ms": "prepare_ms:.1f",
    "MiB": "memory_mib:.0f",
}
_BY_BATCH = {
    "pages in a pass": "pages",
    "PAGEVEC_BATCH_TOKENS": "tokens",
    "pages/s": "pages_per_second:.2f",
    "x one page": "ratio:.2f",
    "pass ms": "pass_ms:.1f",
}
_BY_COUNT = {
    "pages": "pages",
    "pages/s": "pages_per_second:.2f",
    "x the first line": "ratio:.2f",
    "MiB": "memory_mib:.0f",
    "MiB x the first line": "memory_ratio:.2f",
}


def measure(checkpoint: Path, device: str, pages: int, batch: int, growth: int) -> Measurement:
    """Measure the engine alone: by page size, by batch, as the work grows.

    The roofline is what the device's own rates allow. The time of a page against its number of
    tokens can be read from the page sizes.
    """
    settings = make_settings(checkpoint, device)
    backend = load(settings)
    roofline = measure_roofline(backend)
    by_batch = list(measure_batches(backend, pages, batch))
    with run_engine(settings, backend) as engine:
        by_size = list(measure_sizes(engine, backend, pages))
        by_count = list(measure_growth(engine, growth))
    reached = roofline.describe(by_size[0]["pages_per_second"])
    tables = {
        "sizes": Table(_BY_SIZE, by_size, note=reached),
        "batches": Table(_BY_BATCH, by_batch, words=0),
        "growth": Table(_BY_COUNT, by_count, words=0),
    }
    setup = {
        "model": name_model(checkpoint),
        "device": backend.info().device,
        "dtype": backend.info().dtype,
        "passes at once": read_hints(backend).threads,
    }
    measured = {name: table for name, table in tables.items() if table.rows}
    return Measurement("engine", setup, measured, {"roofline": asdict(roofline)})


def measure_sizes(engine: LocalEmbedder, backend: Backend[Any], pages: int) -> Iterator[Row]:
    """Measure each page size, with as many pages as have the tokens of `pages` pages of A4."""
    tokens = {name: backend.page_tokens(*size) for name, size in data.SIZES.items()}
    for name, size in data.SIZES.items():
        count = pages * tokens["A4"] // tokens[name]
        different = data.make_images(min(count, _DIFFERENT), size)
        sent = list(itertools.islice(itertools.cycle(different), count))
        before = engine.health().busy_seconds
        future = engine.embed_images(sent)
        seconds = time_once(future.result)
        busy = engine.health().busy_seconds - before
        yield {
            "page": name,
            "tokens": tokens[name],
            "pages": count,
            "pages_per_second": count / seconds,
            "tokens_per_second": count * tokens[name] / seconds,
            "page_ms": 1000 * seconds / count,
            "forward_ms": 1000 * busy / count,  # of the model
            "prepare_ms": 1000 * future.result().timings.prepare / count,  # of one thread
            "memory_mib": measure_memory(engine),
        }


def measure_batches(backend: Backend[Any], pages: int, most: int) -> Iterator[Row]:
    """Measure forward passes of 1, 2, 4, ... up to `most` pages of A4 that are already prepared.

    As many passes run at once as the engine runs on this device, for about `pages` pages a line.
    """
    images = data.make_images(min(most, _DIFFERENT))
    prepared = [backend.prepare_page(image) for image in images]
    hints = read_hints(backend)
    threads = hints.threads
    alone = None
    with ThreadPoolExecutor(
        threads, initializer=hints.device.share_cores, initargs=(threads,)
    ) as pool:
        for size in (2**power for power in range(most.bit_length())):
            batch = (prepared * size)[:size]

            def run(batch: Sequence[object] = batch) -> None:
                list(pool.map(backend.forward, [batch] * threads))

            run()  # the first one allocates its memory
            rounds = max(1, pages // (size * threads))
            seconds = statistics.median(time_once(run) for _ in range(rounds))
            rate = size * threads / seconds
            alone = alone or rate
            yield {
                "pages": size,
                "tokens": batch_tokens([page.tokens for page in batch], hints.padded),
                "pages_per_second": rate,
                "ratio": rate / alone,
                "pass_ms": 1000 * seconds,
            }


def measure_growth(engine: LocalEmbedder, most: int) -> Iterator[Row]:
    """Measure 10, 100, 1,000, ... up to `most` small pages; memory is the highest of any answer."""
    request = data.make_images(_REQUEST, _SMALL)
    count, first = _REQUEST, (0.0, 0.0)
    while count <= most:
        memory = list[float]()

        def run(count: int = count, memory: list[float] = memory) -> None:
            answers = embed_repeatedly(engine, request, count // _REQUEST)
            memory.extend(measure_memory(engine) for _ in answers)

        rate = count / statistics.median(time_for(_SECONDS, run))
        first = first if count > _REQUEST else (rate, max(memory))
        yield {
            "pages": count,
            "pages_per_second": rate,
            "ratio": rate / first[0],
            "memory_mib": max(memory),
            "memory_ratio": max(memory) / first[1],
        }
        count *= 10


def embed_repeatedly(
    engine: LocalEmbedder, request: list[EncodedImage], requests: int
) -> Iterator[Embedded]:
    """Send `request` this many times, a few at the same time; yield each answer as it comes."""
    waiting = deque[Future[Embedded]]()
    for _ in range(requests):
        if len(waiting) == IN_FLIGHT:
            yield waiting.popleft().result()
        waiting.append(engine.embed_images(request))
    while waiting:
        yield waiting.popleft().result()


def measure_memory(engine: LocalEmbedder) -> float:
    """Return the MiB of this process, or the peak of the GPU's allocator."""
    if engine.info().device.startswith("cuda"):
        return engine.health().memory.peak / _MIB
    return float(psutil.Process().memory_info().rss) / _MIB


main = make_command(
    measure,
    MODEL,
    DEVICE,
    number_option(
        "--pages", 16, "Pages of A4 in a line, or as many smaller ones as have their tokens."
    ),
    number_option("--batch", 16, "Pages of one forward pass, at most."),
    number_option(
        "--growth", 0, "Also 10, 100, 1,000, ... small pages, up to this number.", least=0
    ),
)

if __name__ == "__main__":
    main()
