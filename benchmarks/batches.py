"""The model by the size of batches: pages that share one forward pass."""

import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks import inputs
from benchmarks.clock import seconds_of
from benchmarks.output import table
from pagevec.engine.backends.padded import Runner, runner_of
from pagevec.engine.backends.preprocess import Prepared, share_cores
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.scheduler import batch_tokens

_COLUMNS = ["pages in a pass", "PAGEVEC_BATCH_TOKENS", "pages/s", "x one page", "pass ms"]
_DIFFERENT = 8


@dataclass(frozen=True)
class BatchSpeed:
    """Forward passes of so many pages of A4, already prepared.

    Attributes:
        tokens: of a pass: the setting of the engine that allows it.
        pages_per_second: of all passes that run at once.
        pass_ms: of one of them.
    """

    pages: int
    tokens: int
    pages_per_second: float
    pass_ms: float


def batch_speeds(loaded: LoadedModel, pages: int, most: int) -> Iterator[BatchSpeed]:
    """Measure passes of 1, 2, 4, 8, ... up to `most` pages, with about `pages` pages each.

    So many passes run at once as the engine lets on this device.
    """
    images = inputs.make_images(min(most, _DIFFERENT))
    prepared = [loaded.preprocessor.page(image) for image in images]
    runner, threads = runner_of(loaded), loaded.default_threads
    with ThreadPoolExecutor(threads, initializer=share_cores, initargs=(threads,)) as pool:
        for size in (2**power for power in range(most.bit_length())):
            batch = (prepared * size)[:size]
            rounds = max(1, pages // (size * threads))
            yield _speed(pool, runner, [batch] * threads, rounds, padded=not loaded.packs)


def batch_table(speeds: Sequence[BatchSpeed]) -> str:
    """Return the figures as a table; the first line is a page by itself."""
    return table(_COLUMNS, [_cells(one, speeds[0]) for one in speeds], names=0)


def _speed(
    pool: ThreadPoolExecutor,
    runner: Runner,
    at_once: list[list[Prepared]],
    rounds: int,
    *,
    padded: bool,
) -> BatchSpeed:
    def run() -> None:
        list(pool.map(runner.forward, at_once))

    run()  # the first one takes its memory
    seconds = statistics.median(seconds_of(run) for _ in range(rounds))
    [batch, *_] = at_once
    return BatchSpeed(
        pages=len(batch),
        tokens=batch_tokens([page.tokens for page in batch], padded),
        pages_per_second=len(batch) * len(at_once) / seconds,
        pass_ms=1000 * seconds,
    )


def _cells(one: BatchSpeed, alone: BatchSpeed) -> list[str]:
    return [
        f"{one.pages}",
        f"{one.tokens}",
        f"{one.pages_per_second:.2f}",
        f"{one.pages_per_second / alone.pages_per_second:.2f}",
        f"{one.pass_ms:.1f}",
    ]
