"""The engine by the size of pages: what a page costs against its tokens."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from benchmarks import inputs
from benchmarks.clock import seconds_of
from benchmarks.output import table
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import LoadedModel
from pagevec.images import EncodedImage

_MIB = 2**20
# Pixels at 150 dpi: A4, folded again and again, down to the least that a model takes.
SIZES = {
    "A4": (1240, 1754),
    "A5": (877, 1240),
    "A6": (620, 877),
    "A7": (438, 620),
    "A8": (310, 438),
    "A9": (219, 310),
    "A10": (155, 219),
    "receipt": (400, 1200),
    "dot": (28, 28),
}
_COLUMNS = [
    "page",
    "tokens",
    "pages",
    "pages/s",
    "tokens/s",
    "ms a page",
    "forward ms",
    "prepare ms",
    "MiB",
]
_DIFFERENT = 8


@dataclass(frozen=True)
class SizeSpeed:
    """Pages of one size in one request, through the whole engine.

    Attributes:
        tokens: of a page; pages: how many were sent.
        forward_ms: of the model, for each page; prepare_ms: of one thread, for each page.
        memory_mib: of the process, or the peak of the GPU's allocator.
    """

    page: str
    tokens: int
    pages: int
    pages_per_second: float
    forward_ms: float
    prepare_ms: float
    memory_mib: float

    @property
    def page_ms(self) -> float:
        """What a page takes of the whole engine, preparing included."""
        return 1000 / self.pages_per_second


def size_speeds(engine: LocalEmbedder, loaded: LoadedModel, pages: int) -> Iterator[SizeSpeed]:
    """Measure every size with as many pages as have the tokens of `pages` pages of A4."""
    tokens = {name: loaded.preprocessor.page_tokens(*size) for name, size in SIZES.items()}
    for name, size in SIZES.items():
        count = pages * tokens["A4"] // tokens[name]
        different = inputs.make_images(min(count, _DIFFERENT), size)
        sent = list(itertools.islice(itertools.cycle(different), count))
        yield _speed(engine, name, tokens[name], sent)


def size_table(speeds: Sequence[SizeSpeed]) -> str:
    """Return the figures as a table."""
    return table(_COLUMNS, [_cells(one) for one in speeds])


def memory_mib(engine: LocalEmbedder) -> float:
    """Return the memory of this process, or the peak of the GPU's allocator."""
    if engine.info.device.startswith("cuda"):
        return engine.health().memory.peak / _MIB
    return float(psutil.Process().memory_info().rss) / _MIB


def _speed(engine: LocalEmbedder, name: str, tokens: int, pages: list[EncodedImage]) -> SizeSpeed:
    before = engine.health().busy_seconds
    future = engine.embed(pages)
    seconds = seconds_of(future.result)
    busy = engine.health().busy_seconds - before
    return SizeSpeed(
        page=name,
        tokens=tokens,
        pages=len(pages),
        pages_per_second=len(pages) / seconds,
        forward_ms=1000 * busy / len(pages),
        prepare_ms=1000 * future.result().timings.prepare / len(pages),
        memory_mib=memory_mib(engine),
    )


def _cells(one: SizeSpeed) -> list[str]:
    return [
        one.page,
        f"{one.tokens}",
        f"{one.pages}",
        f"{one.pages_per_second:.2f}",
        f"{one.pages_per_second * one.tokens:.0f}",
        f"{one.page_ms:.1f}",
        f"{one.forward_ms:.1f}",
        f"{one.prepare_ms:.1f}",
        f"{one.memory_mib:.0f}",
    ]
