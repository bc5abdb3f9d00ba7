"""Stages run alone and fail alone; what they find is written as soon as each one ends."""

import inspect
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import torch

from benchmarks.gpu.bench import Bench
from benchmarks.machine import describe_machine
from benchmarks.report import Row, Table

DRY = "**A dry run: nothing here was computed by a GPU, and no time or rate means anything.**"
_ERROR = 600  # characters of an error in the report


@dataclass(frozen=True)
class Found:
    """What a stage found.

    Attributes:
        tables: by their name in JSON.
        faults: what is wrong on this device: a vector that is too far off, a rate below its target.
        unable: what could not run here, and why.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    faults: Sequence[str] = ()
    unable: Sequence[str] = ()


@dataclass(frozen=True)
class Stage:
    """One question to the device.

    Attributes:
        name: as in `--only`.
        run: finds the answer; the first line of its docstring says what it asks.
    """

    name: str
    run: Callable[[Bench], Found]

    @property
    def summary(self) -> str:
        """What it asks."""
        return (inspect.getdoc(self.run) or "").splitlines()[0]


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        stage: its name.
        summary: what it asks.
        state: `skipped` if the time was up before it began.
        seconds: its duration.
        found: what it found; nothing if it failed.
        error: why it failed.
        trace: where.
    """

    stage: str
    summary: str
    state: Literal["done", "failed", "skipped"]
    seconds: float = 0.0
    found: Found = Found()
    error: str = ""
    trace: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the rows of the tables."""
        tables = {name: list(table.rows) for name, table in self.found.tables.items()}
        facts = {name: value for name, value in asdict(self).items() if name != "found"}
        return {**facts, "faults": self.found.faults, "unable": self.found.unable, **tables}

    def markdown(self) -> str:
        """Return its part of the report."""
        parts = [f"### {self.stage}: {self.summary}"]
        parts += [table.markdown() for table in self.found.tables.values()]
        parts += [f"- **wrong**: {fault}" for fault in self.found.faults]
        parts += [f"- not run: {reason}" for reason in self.found.unable]
        if self.state != "done":
            parts.append(f"{self.state}{f': `{self.error}`' if self.error else ', no time left'}")
        return "\n\n".join(parts)


def run_stages(stages: Sequence[Stage], bench: Bench, folder: Path) -> list[Outcome]:
    """Run `stages` in order, and write the report into `folder` after each.

    Args:
        stages: in the order of worth.
        bench: whose time limits them.
        folder: gets `gpu.json` and `gpu.md`.
    """
    outcomes: list[Outcome] = []
    for stage in stages:
        outcomes.append(_run(stage, bench))
        _write(outcomes, bench, folder)
    return outcomes


def attempt(row: Row, work: Callable[[], Row]) -> Row:
    """Return `row` with what `work` returns, or with its `error`."""
    try:
        return {**row, **work()}
    except Exception as error:
        return {**row, "error": show_error(error)}


def collect_errors(rows: Sequence[Row], name: str) -> list[str]:
    """Return a line for each row with an `error`; `name` is the field that tells rows apart."""
    return [f"{row[name]}: {row['error']}" for row in rows if "error" in row]


def show_error(error: BaseException) -> str:
    """Return an error on one line, cut to a readable length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_ERROR]


def show_markdown(outcomes: Sequence[Outcome], bench: Bench) -> str:
    """Return the report, ready for docs/benchmarks.md."""
    facts = ", ".join(f"{name} {value}" for name, value in _machine(bench).items())
    head = [DRY] if bench.emulated else []
    return "\n\n".join([*head, *(one.markdown() for one in outcomes), facts]) + "\n"


def _run(stage: Stage, bench: Bench) -> Outcome:
    if not bench.has_time():
        click.echo(f"== {stage.name}: skipped, no time left")
        return Outcome(stage.name, stage.summary, "skipped")
    click.echo(f"== {stage.name}: {stage.summary}")
    started = time.perf_counter()
    try:
        found = stage.run(bench)
    except Exception as error:
        seconds, trace = time.perf_counter() - started, traceback.format_exc(limit=-8)
        click.echo(f"   failed after {seconds:.0f} s: {show_error(error)}")
        return Outcome(
            stage.name, stage.summary, "failed", seconds, error=show_error(error), trace=trace
        )
    seconds = time.perf_counter() - started
    click.echo(f"   {seconds:.0f} s")
    for line in (*found.faults, *found.unable):
        click.echo(f"   {line}")
    return Outcome(stage.name, stage.summary, "done", seconds, found)


def _write(outcomes: Sequence[Outcome], bench: Bench, folder: Path) -> None:
    report = {
        "measured": "gpu",
        "dry_run": bench.emulated,
        "machine": _machine(bench),
        "stages": [one.as_json() for one in outcomes],
    }
    text = json.dumps(report, indent=2, default=str)
    (folder / "gpu.json").write_text(text + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(show_markdown(outcomes, bench), encoding="utf-8")


def _machine(bench: Bench) -> dict[str, Any]:
    return {"card": torch.cuda.get_device_name(), **describe_machine()}
