"""The engine as the work grows: does the last of ten thousand pages cost what the first did?"""

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from benchmarks import inputs
from benchmarks.clock import times
from benchmarks.output import table
from benchmarks.sizes import SIZES, memory_mib
from pagevec.engine.api import Embedded
from pagevec.engine.embedder import LocalEmbedder
from pagevec.images import EncodedImage

_COLUMNS = ["pages", "pages/s", "x the first line", "MiB", "x the first line"]
# Ten thousand of them take minutes on two cores.
_PAGE = SIZES["A8"]
# Callers send a few pages at a time and let go of the answers; the engine has always some to do.
_REQUEST = 10
IN_FLIGHT = 8
# Few pages are over before a clock says much: they are sent again.
_SECONDS = 3.0


@dataclass(frozen=True)
class Growth:
    """So many small pages, one after the other: the median of rounds where there are some.

    Attributes:
        memory_mib: the highest after any answer; see `sizes.memory_mib`.
    """

    pages: int
    pages_per_second: float
    memory_mib: float


def growth_of(engine: LocalEmbedder, most: int) -> Iterator[Growth]:
    """Measure 10, 100, 1,000, ... up to `most` pages."""
    request = inputs.make_images(_REQUEST, _PAGE)
    count = _REQUEST
    while count <= most:
        yield _growth(engine, request, count)
        count *= 10


def growth_table(lines: Sequence[Growth]) -> str:
    """Return the figures as a table."""
    return table(_COLUMNS, [_cells(line, lines[0]) for line in lines], names=0)


def _growth(engine: LocalEmbedder, request: list[EncodedImage], count: int) -> Growth:
    memory = list[float]()

    def run() -> None:
        memory.extend(memory_mib(engine) for _ in answers(engine, request, count // _REQUEST))

    seconds = statistics.median(times(run, _SECONDS))
    return Growth(count, count / seconds, max(memory))


def answers(
    engine: LocalEmbedder, request: list[EncodedImage], requests: int
) -> Iterator[Embedded]:
    """Send so many requests, a few at a time; give each answer as it comes."""
    waiting = deque[Future[Embedded]]()
    for _ in range(requests):
        if len(waiting) == IN_FLIGHT:
            yield waiting.popleft().result()
        waiting.append(engine.embed(request))
    while waiting:
        yield waiting.popleft().result()


def _cells(line: Growth, first: Growth) -> list[str]:
    return [
        f"{line.pages}",
        f"{line.pages_per_second:.2f}",
        f"{line.pages_per_second / first.pages_per_second:.2f}",
        f"{line.memory_mib:.0f}",
        f"{line.memory_mib / first.memory_mib:.2f}",
    ]
