"""Charts as SVG files: the same bytes for the same figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.charts import Chart, Line, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = (5.0, 3.4)  # inches
_COLOURS = ("#1f77b4", "#d95f02")
_GREY = "#777777"
_HEADROOM = 1.1
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",  # a page may be dark
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pagevec",
}
_NEITHER_DATE_NOR_VERSION = {"Date": None, "Creator": None}


def save(chart: Chart, file: Path) -> None:
    """Draw `chart` into `file`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width, height = _PANEL
    with rc_context(_STYLE):
        figure = Figure((width * len(chart.panels), height), layout="constrained")
        for place, panel in enumerate(chart.panels, start=1):
            _draw(figure.add_subplot(1, len(chart.panels), place), panel, place)
        figure.supxlabel(chart.facts, fontsize="small", color=_GREY)
        figure.savefig(file, format="svg", metadata=_NEITHER_DATE_NOR_VERSION)


def _draw(axes: "Axes", panel: Panel, place: int) -> None:
    for number, line in enumerate(panel.lines, start=1):
        _draw_line(axes, line, f"line-{place}-{number}")
    axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
    if panel.base:
        _mark_each_point(axes, panel)
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(0, _HEADROOM * max(y for line in panel.lines for _, y in line.points))
    axes.legend()


def _draw_line(axes: "Axes", line: Line, gid: str) -> None:
    x, y = zip(*line.points, strict=True)
    label = line.label or "_"  # a name that matplotlib leaves out of the legend
    if line.guide:
        axes.plot(x, y, ":", color=_GREY, linewidth=1, label=label, gid=gid)
    else:
        style = "o--" if line.dashed else "o-"
        axes.plot(x, y, style, color=_COLOURS[line.colour], label=label, gid=gid)


def _mark_each_point(axes: "Axes", panel: Panel) -> None:
    marks = sorted({x for line in panel.lines for x, _ in line.points})
    axes.set_xscale("log", base=panel.base)
    axes.set_xticks(marks, [f"{mark:,.0f}" for mark in marks])
    axes.minorticks_off()
