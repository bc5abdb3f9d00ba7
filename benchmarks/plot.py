"""`python -m benchmarks plot`: the figures of other commands as pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from benchmarks.callers import CallersReport
from benchmarks.charts import Chart, callers_charts, engine_charts
from benchmarks.engine import EngineReport
from benchmarks.svg import save

_DRAWN = ("engine", "callers")


@click.command("plot")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the SVG files go; each is named after its JSON file and what it shows.",
)
def command(files: tuple[Path, ...], directory: Path) -> None:
    """Draw the JSON FILES of `engine` and `callers` as SVG."""
    charts = [(file, chart) for file in files for chart in charts_of(file)]
    directory.mkdir(parents=True, exist_ok=True)
    for file, chart in charts:
        picture = directory / f"{file.stem}-{chart.name}.svg"
        try:
            save(chart, picture)
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error}: pip install 'pagevec[serve,bench]'") from error
        click.echo(picture)


def charts_of(file: Path) -> Iterator[Chart]:
    """Give the charts of a JSON file that `--json` wrote.

    Raises:
        click.ClickException: it is none, of a command that has no charts, or some are missing.
    """
    content = _read(file)
    try:
        if content["measured"] == "engine":
            yield from engine_charts(TypeAdapter(EngineReport).validate_python(content))
        else:
            yield from callers_charts(TypeAdapter(CallersReport).validate_python(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise click.ClickException(
            f"{file}: {where}: {first['msg']}; measure again with this version"
        ) from None


def _read(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{file}: not JSON: {error}") from None
    measured = content.get("measured") if isinstance(content, dict) else None
    if measured not in _DRAWN:
        of = f"figures of `{measured}`" if measured else "no figures of a measurement"
        raise click.ClickException(f"{file}: {of}; those of {' and '.join(_DRAWN)} can be drawn")
    return dict(content)
