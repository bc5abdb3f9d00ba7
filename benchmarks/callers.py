"""`python -m benchmarks callers`: a service under load, by the number of callers at once."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import httpx

from benchmarks import inputs
from benchmarks.load import Load, run_load
from benchmarks.machine import machine
from benchmarks.models import chosen_model, model_options, name_of
from benchmarks.output import facts, give, json_option, table
from benchmarks.report import Latency
from benchmarks.servers import Server, ServerFailed, pagevec
from pagevec.types import InputType

_FORMATS = ("npz", "json")
_COLUMNS = [
    "load",
    "format",
    "callers",
    "requests",
    "inputs/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "kB each",
]
_PAGES, _TEXTS = 8, 64  # different ones, sent in turn
_EACH = 3  # requests of every caller, at least


@dataclass(frozen=True)
class LoadLine:
    """So many callers at once, each of which asks again as soon as it has its answer.

    Attributes:
        load: "pages" or "texts"; format: of the answers, "npz" or "json".
        bytes_each: of the answers, for each input.
    """

    load: str
    format: str
    callers: int
    inputs_per_second: float
    latency: Latency
    bytes_each: float


@dataclass(frozen=True)
class CallersReport:
    """All figures of one run."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    lines: list[LoadLine]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        lines = table(_COLUMNS, [_cells(line) for line in self.lines], names=2)
        return f"{lines}\n\n{facts(self.machine, self.setup)}"


@click.command("callers")
@model_options
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Callers at once: 1, 2, 4, 8, ... up to so many.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Of a line, at least; three of each caller, and for a second, in any case.",
)
@click.option(
    "--inputs",
    "batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Pages or texts in a request.",
)
@json_option
def command(
    model: Path | None,
    full_size: Path | None,
    device: str,
    most: int,
    requests: int,
    batch: int,
    file: Path | None,
) -> None:
    """Measure throughput and latency over HTTP: pages and texts, npz and JSON.

    The callers are threads of this process and use the same cores as the service.
    """
    try:
        report = measure(chosen_model(model, full_size), device, most, requests, batch)
    except (ServerFailed, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
    give("callers", report, file)


def measure(
    checkpoint: Path, device: str, most: int, requests: int, batch: int = 1
) -> CallersReport:
    """Start a service of the model in `checkpoint` and put it under load.

    Raises:
        ServerFailed, httpx.HTTPError: it does not start, or does not answer with a 200.
    """
    bodies = {
        "pages": _bodies("image", inputs.as_base64(inputs.make_pages(_PAGES)), batch),
        "texts": _bodies("text", inputs.make_texts(_TEXTS), batch),
    }
    loads = [
        Load(name, sent, batch, callers, max(requests, _EACH * callers))
        for name, sent in bodies.items()
        for callers in (2**power for power in range(most.bit_length()))
    ]
    with pagevec(checkpoint, device) as server:
        setup: dict[str, str | int] = {
            "model": name_of(checkpoint),
            "device": _ask_once(server, bodies.values()),
            "inputs in a request": batch,
        }
        return CallersReport(machine(), setup, list(_lines(server, loads)))


def _bodies(kind: InputType, different: list[str], batch: int) -> list[bytes]:
    return inputs.bodies(kind, different * -(-batch // len(different)), batch)


def _ask_once(server: Server, loads: Iterable[list[bytes]]) -> str:
    """Have each way gone once, which warms it up; return the service's device."""
    with server.client() as http:
        for form, (body, *_) in itertools.product(_FORMATS, loads):
            http.post(f"/{form}/embeddings", content=body).raise_for_status()
        return str(http.get("/info").raise_for_status().json()["device"])


def _lines(server: Server, loads: list[Load]) -> Iterator[LoadLine]:
    for form in _FORMATS:
        for load in loads:
            yield _line(server, form, load)


def _line(server: Server, form: str, load: Load) -> LoadLine:
    seen = run_load(server, f"/{form}/embeddings", load)
    return LoadLine(
        load=load.name,
        format=form,
        callers=load.clients,
        inputs_per_second=seen.inputs_per_second,
        latency=Latency.of(seen.latencies),
        bytes_each=seen.received / seen.inputs,
    )


def _cells(line: LoadLine) -> list[str]:
    return [
        line.load,
        line.format,
        f"{line.callers}",
        f"{line.latency.requests}",
        f"{line.inputs_per_second:.1f}",
        *line.latency.cells(),
        f"{line.bytes_each / 1000:.0f}",
    ]
