"""`python -m benchmarks cold`: from the start of a process to its first vectors, by stages."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import inputs
from benchmarks.clock import seconds_of
from benchmarks.machine import machine
from benchmarks.models import chosen_model, model_options, name_of
from benchmarks.output import facts, give, json_option, table
from benchmarks.servers import pagevec

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
        lines = table(["", "s"], [(name, f"{seconds:.2f}") for name, seconds in seen.items()])
        return f"{lines}\n\n{facts(self.machine, {'model': self.model})}"


@click.command("cold")
@model_options
@json_option
def command(model: Path | None, full_size: Path | None, device: str, file: Path | None) -> None:
    """Start a service and time what a first caller waits for."""
    give("cold", measure(chosen_model(model, full_size), device), file)


def measure(checkpoint: Path, device: str = "cpu") -> ColdReport:
    """Start a service of the model in `checkpoint`; ask it for a text and for a page."""
    [text] = inputs.bodies("text", inputs.make_texts(1), 1)
    [page] = inputs.bodies("image", inputs.as_base64(inputs.make_pages(1)), 1)
    started = time.perf_counter()
    with pagevec(checkpoint, device) as server, server.client() as http:
        ready = time.perf_counter() - started

        def post(body: bytes) -> Any:
            return http.post("/npz/embeddings", content=body).raise_for_status()

        first_text, first_page = seconds_of(lambda: post(text)), seconds_of(lambda: post(page))
        stages = {name: float(value) for name, value in _STAGE.findall(http.get("/metrics").text)}
    return ColdReport(machine(), name_of(checkpoint), ready, first_text, first_page, stages)
