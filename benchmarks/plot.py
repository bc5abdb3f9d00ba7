"""Draw the JSON files of `engine`, `callers` and `million` as SVG; same figures, same bytes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.report import raise_missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]
Panel = Callable[["Axes", str], None]
"""Draws into axes; the ids of its lines begin with the given word."""
_FLAT = 0.1  # how far from the first line the others may be
_PANEL = (5.0, 3.4)  # inches
_GREY = "#777777"
_FORMATS = {"npz": ("npz", "#1f77b4"), "json": ("JSON", "#d95f02")}
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",  # the page around it may be dark
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pagevec",
}
_NEITHER_DATE_NOR_VERSION = {"Date": None, "Creator": None}


class FiguresMissing(Exception):
    """Figures are not there, or not of the expected form."""


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the SVG files go; each is named after its JSON file and what it shows.",
)
def main(files: tuple[Path, ...], directory: Path) -> None:
    """Draw the JSON FILES of `engine`, `callers` and `million` as SVG."""
    pictures = {}
    for file in files:
        try:
            for name, svg in draw_figures(file):
                pictures[directory / f"{file.stem}-{name}.svg"] = svg
        except FiguresMissing as error:
            raise click.ClickException(f"{file}: {error}") from error
        except ModuleNotFoundError as error:
            raise_missing_extra(error)
    directory.mkdir(parents=True, exist_ok=True)
    for picture, svg in pictures.items():
        picture.write_bytes(svg)
        click.echo(picture)


def draw_figures(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and SVG of each chart of a JSON file that `--json` wrote.

    Raises:
        FiguresMissing: it is another file, or of another version.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FiguresMissing(f"not JSON: {error}") from None
    measured = content.get("measured") if isinstance(content, dict) else None
    if measured not in _CHARTS:
        found = f"figures of `{measured}`" if measured else "no figures of a benchmark"
        raise FiguresMissing(f"{found}; those of {', '.join(_CHARTS)} can be drawn")
    machine, setup = _read(content, "machine"), _read(content, "setup")
    facts = f"{setup['model']} on {setup['device']} ({machine['cpu']}, {machine['cores']} cores)"
    for name, panels in _CHARTS[measured](content):
        yield name, _draw(panels, facts)


def _chart_engine(content: dict[str, Any]) -> Iterator[tuple[str, list[Panel]]]:
    """Yield pages/s by batch, the time of a page by its tokens and, where measured, growth."""
    yield "pages-by-batch", [partial(_draw_batches, _read_points(content, "batches", "pages"))]
    tokens = sorted(_read_points(content, "sizes", "tokens", "page_ms"))
    yield "page-time-by-tokens", [partial(_draw_tokens, tokens)]
    if content.get("growth"):
        rates = _read_points(content, "growth", "pages")
        memory = _read_points(content, "growth", "pages", "memory_mib")
        units = {"pages/s": rates, "memory, MiB": memory}
        yield "growth", [partial(_draw_growth, points, unit) for unit, points in units.items()]


def _chart_callers(content: dict[str, Any]) -> Iterator[tuple[str, list[Panel]]]:
    """Yield latency by load."""
    loads = dict.fromkeys(line["load"] for line in _read(content, "lines"))
    yield "latency-by-load", [partial(_draw_latency, content, load) for load in loads]


def _chart_million(content: dict[str, Any]) -> Iterator[tuple[str, list[Panel]]]:
    """Yield time and space of a search by the pages of its store."""
    fields = {
        "ms a query": {"query_ms": "median", "slowest_ms": "slowest"},
        "MiB": {"memory_mib": "memory", "disk_mib": "disk"},
    }
    yield (
        "by-pages",
        [
            partial(
                _draw_sizes,
                {
                    name: _read_points(content, "sizes", "pages", field)
                    for field, name in some.items()
                },
                unit,
            )
            for unit, some in fields.items()
        ],
    )


_CHARTS = {"engine": _chart_engine, "callers": _chart_callers, "million": _chart_million}


def _read(content: dict[str, Any], name: str) -> Any:
    if name not in content:
        raise FiguresMissing(f"{name} is missing; measure again with this version")
    return content[name]


def _read_points(
    content: dict[str, Any], name: str, x: str, y: str = "pages_per_second", **where: str
) -> Points:
    """Return (x, y) of the rows of table `name` whose fields are equal to `where`."""
    try:
        rows = [row for row in _read(content, name) if where.items() <= row.items()]
        return [(float(row[x]), float(row[y])) for row in rows]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FiguresMissing(f"{name}: {error!r}; measure again with this version") from error


def _draw(panels: list[Panel], facts: str) -> bytes:
    """Return an SVG of `panels` side by side."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width, height = _PANEL
    file = BytesIO()
    with rc_context(_STYLE):
        figure = Figure((width * len(panels), height), layout="constrained")
        for place, draw in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), place)
            draw(axes, f"line-{place}")
            axes.legend()
        figure.supxlabel(facts, fontsize="small", color=_GREY)
        figure.savefig(file, format="svg", metadata=_NEITHER_DATE_NOR_VERSION)
    return file.getvalue()


def _draw_batches(points: Points, axes: "Axes", line: str) -> None:
    axes.plot(*_split(points), "o-", label="A4, prepared", gid=f"{line}-1")
    axes.set(xlabel="pages in a forward pass", ylabel="pages/s")
    _mark_points(axes, points, base=2)
    axes.set_ylim(0)


def _draw_tokens(points: Points, axes: "Axes", line: str) -> None:
    axes.plot(*_split(points), "o-", label="whole engine", gid=f"{line}-1")
    # The straight line through 0 that is nearest to the points.
    slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    last, _ = points[-1]
    _draw_guide(axes, [(0.0, 0.0), (last, slope * last)], "proportional", f"{line}-2")
    axes.set(xlabel="tokens of a page", ylabel="ms a page")
    axes.set_ylim(0)


def _draw_growth(points: Points, unit: str, axes: "Axes", line: str) -> None:
    axes.plot(*_split(points), "o-", label="small pages", gid=f"{line}-1")
    (left, first), (right, _) = points[0], points[-1]
    for number, share, label in (
        (2, 1 + _FLAT, f"first, {_FLAT:.0%} more or less"),
        (3, 1 - _FLAT, "_"),
    ):
        _draw_guide(
            axes, [(left, share * first), (right, share * first)], label, f"{line}-{number}"
        )
    axes.set(xlabel="pages", ylabel=unit)
    _mark_points(axes, points, base=10)
    axes.set_ylim(0)


def _draw_sizes(lines: Mapping[str, Points], unit: str, axes: "Axes", line: str) -> None:
    from matplotlib.ticker import LogLocator

    for number, (name, points) in enumerate(lines.items(), start=1):
        axes.plot(*_split(points), "o-", label=name, gid=f"{line}-{number}")
        _mark_points(axes, points, base=10)
    axes.set(xlabel="pages", ylabel=unit)
    axes.set_yscale("log", subs=[])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")


def _draw_latency(content: dict[str, Any], load: str, axes: "Axes", line: str) -> None:
    drawn = 0
    for form, (name, colour) in _FORMATS.items():
        for field, style in (("p50_ms", "o-"), ("p95_ms", "o--")):
            drawn += 1
            points = _read_points(content, "lines", "callers", field, load=load, format=form)
            label = f"{name}, {field.removesuffix('_ms')}"
            axes.plot(*_split(points), style, color=colour, label=label, gid=f"{line}-{drawn}")
            _mark_points(axes, points, base=2)
    axes.set(xlabel="callers at once", ylabel="ms a request", title=load)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")


def _draw_guide(axes: "Axes", points: Points, label: str, line: str) -> None:
    """Draw a thin line without marks, since nothing was measured there."""
    axes.plot(*_split(points), ":", color=_GREY, linewidth=1, label=label, gid=line)


def _split(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _mark_points(axes: "Axes", points: Points, base: int) -> None:
    """Give the logarithmic x axis a mark at each point, and no other."""
    marks = [x for x, _ in points]
    axes.set_xscale("log", base=base)
    axes.set_xticks(marks, [f"{mark:,.0f}" for mark in marks])
    axes.minorticks_off()


if __name__ == "__main__":
    main()
