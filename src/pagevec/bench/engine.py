"""`python -m pagevec.bench engine`: pages a second, beside what the device can do at most."""

import time
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

from pagevec.bench import inputs
from pagevec.bench.floor import Floor, floor_of
from pagevec.bench.machine import machine
from pagevec.bench.models import chosen_model, model_options
from pagevec.bench.output import facts, give, json_option, table
from pagevec.engine.loader import load
from pagevec.engine.local import LocalEmbedder
from pagevec.images import EncodedImage
from pagevec.settings import Settings

_SIZES = {"A4": (1240, 1754), "half of A4": (877, 1240), "receipt": (400, 1200), "dot": (28, 28)}
_GROWTH = (10, 100, 1000, 10_000)
_SMALL = (140, 196)
_MIB = 2**20
_COLUMNS = [
    "page",
    "tokens",
    "pages",
    "pages/s",
    "tokens/s",
    "forward ms",
    "prepare ms",
    "MiB",
]


@dataclass(frozen=True)
class Speed:
    """Pages of one size, so many at once.

    Attributes:
        tokens: of a page; forward_ms: of the model, for each page; prepare_ms: of one thread.
        memory_mib: of the process, or of the GPU's allocator.
    """

    page: str
    tokens: int
    pages: int
    pages_per_second: float
    forward_ms: float
    prepare_ms: float
    memory_mib: float


@dataclass(frozen=True)
class EngineReport:
    """All figures of one run."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    floor: Floor
    speeds: list[Speed]

    def markdown(self) -> str:
        """Return the table, the floor, and what it was measured on."""
        rows = [
            [
                one.page,
                f"{one.tokens}",
                f"{one.pages}",
                f"{one.pages_per_second:.2f}",
                f"{one.pages_per_second * one.tokens:.0f}",
                f"{one.forward_ms:.1f}",
                f"{one.prepare_ms:.1f}",
                f"{one.memory_mib:.0f}",
            ]
            for one in self.speeds
        ]
        best = max(one.pages_per_second for one in self.speeds if one.page == "A4")
        told = self.floor.sentence(best)
        return "\n".join([table(_COLUMNS, rows), "", told, facts(self.machine, self.setup)])


@click.command("engine")
@model_options
@click.option("--pages", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--growth", is_flag=True, help="Also 10 to 10,000 small pages, one request each.")
@json_option
def command(
    model: Path | None,
    full_size: Path | None,
    device: str,
    pages: int,
    growth: bool,
    file: Path | None,
) -> None:
    """Measure the engine alone by page size, and the device's own rates beside it."""
    give("engine", measure(chosen_model(model, full_size), device, pages, growth), file)


def measure(checkpoint: Path, device: str, pages: int, growth: bool) -> EngineReport:
    """Measure the model in `checkpoint` on `device` with so many pages of each size."""
    settings = Settings(
        _env_file=None, model=str(checkpoint), device=device, max_queued_inputs=max(_GROWTH)
    )
    loaded = load(settings)
    floor = floor_of(loaded)
    engine = LocalEmbedder.of(settings, lambda: loaded)
    engine.wait_until_ready()
    speeds = [
        _speed(engine, name, inputs.make_images(pages, size)) for name, size in _SIZES.items()
    ]
    for count in _GROWTH if growth else ():
        speeds.append(_speed(engine, "small", inputs.make_images(10, _SMALL) * (count // 10)))
    engine.close()
    setup: dict[str, str | int] = {
        "model": checkpoint.name,
        "device": loaded.info.device,
        "dtype": loaded.info.dtype,
    }
    return EngineReport(machine(), setup, floor, speeds)


def _speed(engine: LocalEmbedder, name: str, pages: list[EncodedImage]) -> Speed:
    started = time.perf_counter()
    before = engine.health().busy_seconds
    embedded = engine.embed(pages).result()
    seconds = time.perf_counter() - started
    busy = engine.health().busy_seconds - before
    on_gpu = engine.info.device.startswith("cuda")
    memory = engine.health().memory.peak if on_gpu else psutil.Process().memory_info().rss
    return Speed(
        page=name,
        tokens=embedded.tokens // len(pages),
        pages=len(pages),
        pages_per_second=len(pages) / seconds,
        forward_ms=1000 * busy / len(pages),
        prepare_ms=1000 * embedded.timings.prepare / len(pages),
        memory_mib=memory / _MIB,
    )
