"""What a measurement gives: a table to read, the facts below it, and all figures as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import click

json_option = click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures."
)


class Figures(Protocol):
    """All figures of one run: a dataclass that can be read as a table."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        ...


def give(measured: str, figures: Figures, file: Path | None) -> None:
    """Print the figures of the command `measured`; write them to `file`, if there is one."""
    write(measured, asdict(figures), file)
    click.echo(figures.markdown())


def write(measured: str, content: Mapping[str, Any], file: Path | None) -> None:
    """Write `content` to `file`, if there is one; `measured` says by which command it was."""
    if file is not None:
        text = json.dumps({"measured": measured, **content}, indent=2)
        file.write_text(text + "\n", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """Return a Markdown table; the first `names` columns are words, the others numbers."""
    rule = ["---"] * names + ["---:"] * (len(head) - names)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def facts(*of: Mapping[str, object]) -> str:
    """Return one line of names and values."""
    return ", ".join(f"{name} {value}" for each in of for name, value in each.items())


def spread(rates: Sequence[float]) -> str:
    """Return the lowest and the highest of several rounds."""
    return f"{min(rates):.2f} to {max(rates):.2f}"
