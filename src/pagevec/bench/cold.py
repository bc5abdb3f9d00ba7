"""`python -m pagevec.bench cold`: from the start of a process to its first vectors, by stages."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from pagevec.bench import inputs
from pagevec.bench.machine import machine
from pagevec.bench.models import chosen_model, model_options
from pagevec.bench.servers import pagevec

_STAGE = re.compile(r'^pagevec_start_seconds\{stage="(\w+)"\} (\S+)$', re.M)


@dataclass(frozen=True)
class ColdReport:
    """Seconds of one start: as it was seen from outside, and the service's own account of it."""

    machine: dict[str, str | int]
    model: str
    ready: float
    first_text: float
    first_page: float
    stages: dict[str, float]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        seen = {
            "process started to ready": self.ready,
            **{f"of these: {stage}": seconds for stage, seconds in self.stages.items()},
            "first text, over HTTP": self.first_text,
            "first page, over HTTP": self.first_page,
        }
        rows = [f"| {name} | {seconds:.2f} |" for name, seconds in seen.items()]
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return "\n".join(["| | s |", "| --- | ---: |", *rows, "", f"{facts}, model {self.model}"])


@click.command("cold")
@model_options
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path))
def command(model: Path | None, full_size: Path | None, device: str, file: Path | None) -> None:
    """Start a service and time what a first caller waits for."""
    report = measure(chosen_model(model, full_size), device)
    if file is not None:
        file.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    click.echo(report.markdown())


def measure(checkpoint: Path, device: str = "cpu") -> ColdReport:
    """Start a service of the model in `checkpoint`; ask it for a text and for a page."""
    [text] = inputs.bodies("text", inputs.make_texts(1), 1)
    [page] = inputs.bodies("image", inputs.as_base64(inputs.make_pages(1)), 1)
    started = time.perf_counter()
    with pagevec(checkpoint, device) as server, server.client() as http:
        ready = time.perf_counter() - started

        def post(body: bytes) -> Any:
            return http.post("/npz/embeddings", content=body).raise_for_status()

        first_text, first_page = _seconds(lambda: post(text)), _seconds(lambda: post(page))
        stages = {name: float(value) for name, value in _STAGE.findall(http.get("/metrics").text)}
    return ColdReport(machine(), checkpoint.name, ready, first_text, first_page, stages)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
