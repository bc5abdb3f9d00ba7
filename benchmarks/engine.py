"""`python -m benchmarks engine`: pages a second, beside what the device can do at most."""

from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.batches import BatchSpeed, batch_speeds, batch_table
from benchmarks.floor import Floor, floor_of
from benchmarks.growth import Growth, growth_of, growth_table
from benchmarks.machine import machine
from benchmarks.models import chosen_model, model_options, name_of
from benchmarks.output import facts, give, json_option
from benchmarks.sizes import SizeSpeed, size_speeds, size_table
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import LoadedModel, load
from pagevec.settings import Settings

_ALL_DAY = 86_400.0


@dataclass(frozen=True)
class EngineReport:
    """All figures of one run."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    floor: Floor
    sizes: list[SizeSpeed]
    batches: list[BatchSpeed]
    growth: list[Growth]

    def markdown(self) -> str:
        """Return the tables, the floor, and what it was measured on."""
        parts = [
            size_table(self.sizes),
            self.floor.sentence(self.sizes[0].pages_per_second),
            batch_table(self.batches),
        ]
        if self.growth:
            parts.append(growth_table(self.growth))
        return "\n\n".join([*parts, facts(self.machine, self.setup)])


@click.command("engine")
@model_options
@click.option(
    "--pages",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Pages of A4 in a line, or as many smaller ones as have their tokens.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Pages of one forward pass, at most.",
)
@click.option(
    "--growth",
    "grown",
    type=click.IntRange(min=10),
    help="Also 10, 100, 1,000, ... small pages, up to so many.",
)
@json_option
def command(
    model: Path | None,
    full_size: Path | None,
    device: str,
    pages: int,
    batch: int,
    grown: int | None,
    file: Path | None,
) -> None:
    """Measure the engine alone: by page size, by batch, as the work grows.

    Beside it stand the device's own rates. The time of a page against its tokens is that of the
    page sizes.
    """
    report = measure(chosen_model(model, full_size), device, pages, batch, grown or 0)
    give("engine", report, file)


def measure(checkpoint: Path, device: str, pages: int, batch: int, grown: int) -> EngineReport:
    """Measure the model in `checkpoint` on `device`: see the options of `command`."""
    settings = Settings(
        _env_file=None,
        model=str(checkpoint),
        device=device,
        max_queued_inputs=1_000_000,
        request_seconds=_ALL_DAY,
    )
    loaded = load(settings)
    floor = floor_of(loaded)
    by_batch = list(batch_speeds(loaded, pages, batch))
    engine = LocalEmbedder.of(settings, lambda: loaded)
    engine.wait_until_ready()
    by_size = list(size_speeds(engine, loaded, pages))
    by_count = list(growth_of(engine, grown))
    engine.close()
    return EngineReport(machine(), _setup(checkpoint, loaded), floor, by_size, by_batch, by_count)


def _setup(checkpoint: Path, loaded: LoadedModel) -> dict[str, str | int]:
    return {
        "model": name_of(checkpoint),
        "device": loaded.info.device,
        "dtype": loaded.info.dtype,
        "passes at once": loaded.default_threads,
    }
