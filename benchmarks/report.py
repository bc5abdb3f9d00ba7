"""The figures of a benchmark, as tables and as JSON, and the command line that prints them."""

import inspect
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx

from benchmarks import BenchmarkFailed
from benchmarks.machine import describe_machine
from pagevec.errors import PagevecError

Row = Mapping[str, Any]
LATENCY = {"p50 ms": "p50_ms:.1f", "p95 ms": "p95_ms:.1f", "p99 ms": "p99_ms:.1f"}
"""The columns of `summarize_latency`."""
_EXTRA = {"bm25s", "matplotlib", "reportlab"}  # what `pagevec[bench]` installs


@dataclass(frozen=True)
class Table:
    """Figures, one row for each thing that was measured.

    Attributes:
        columns: heading of a column -> the field of a row that it shows and its format, such as
            `pages_per_second:.2f`. A list is shown as its range, None as an empty cell.
        rows: fields by name; JSON has all of them, whether a column shows them or not.
        words: how many of the first columns are left-aligned.
        note: sentence below the table.
    """

    columns: Mapping[str, str]
    rows: Sequence[Row]
    words: int = 1
    note: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown, with its note."""
        rule = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        cells = [[_cell(row, shown) for shown in self.columns.values()] for row in self.rows]
        lines = [f"| {' | '.join(line)} |" for line in (list(self.columns), rule, *cells)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


@dataclass(frozen=True)
class Measurement:
    """All figures of one run.

    Attributes:
        name: the benchmark, as in `python -m benchmarks.NAME`.
        setup: what was measured, and how.
        tables: by their name in JSON.
        figures: further figures, for JSON only.
        remark: ends the line of facts below the tables.
        machine: what it was measured on.
    """

    name: str
    setup: Row
    tables: Mapping[str, Table]
    figures: Row = field(default_factory=dict)
    remark: str = ""
    machine: Row = field(default_factory=describe_machine)

    def markdown(self) -> str:
        """Return the tables, and a line that says what they were measured on."""
        facts = ", ".join(
            f"{name} {value}" for name, value in {**self.machine, **self.setup}.items()
        )
        below = f"{facts}; {self.remark}" if self.remark else facts
        return "\n\n".join([*(table.markdown() for table in self.tables.values()), below])

    def as_json(self) -> dict[str, Any]:
        """Return all figures."""
        rows = {name: list(table.rows) for name, table in self.tables.items()}
        facts = {"measured": self.name, "machine": self.machine, "setup": self.setup}
        return {**facts, **self.figures, **rows}

    def write(self, file: Path) -> None:
        """Write all figures to `file` as JSON."""
        file.write_text(
            json.dumps(self.as_json(), indent=2, default=asdict) + "\n", encoding="utf-8"
        )


def number_option(name: str, default: int, help: str = "", *, least: int = 1) -> click.Option:
    """Return an option that takes a whole number of at least `least`."""
    kind = click.IntRange(min=least)
    return click.Option([name], type=kind, default=default, show_default=True, help=help)


def make_command(measure: Callable[..., Measurement], *options: click.Option) -> click.Command:
    """Return the command that runs `measure` with `options`, prints tables and writes JSON.

    Its help is the docstring of `measure`, without what follows `Args:`.
    """

    def run(file: Path | None, **chosen: Any) -> None:
        # The services under test are child processes: an exception ends them, a signal would not.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            measured = measure(**chosen)
        except (BenchmarkFailed, PagevecError, httpx.HTTPError) as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            raise_missing_extra(error)
        if file is not None:
            measured.write(file)
        click.echo(measured.markdown())

    help_, *_ = (inspect.getdoc(measure) or "").partition("\n\nArgs:")
    path = click.Path(dir_okay=False, path_type=Path)
    to_json = click.Option(["--json", "file"], type=path, help="Write all figures to this file.")
    return click.Command(None, params=[*options, to_json], callback=run, help=help_)


def raise_missing_extra(error: ModuleNotFoundError) -> NoReturn:
    """Raise an error that says how the missing package is installed; others are raised as is."""
    if error.name is None or error.name.partition(".")[0] not in _EXTRA:
        raise error
    raise click.ClickException(f"{error}: pip install 'pagevec[serve,pdf,bench]'") from error


def _cell(row: Row, shown: str) -> str:
    name, _, form = shown.partition(":")
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, list):
        return f"{min(value):{form}} to {max(value):{form}}"
    return format(value, form) if form else str(value)
