"""Figures as charts: which lines stand over which axes. Nothing is drawn here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.callers import CallersReport, LoadLine
from benchmarks.engine import EngineReport
from benchmarks.sizes import SizeSpeed

Points = list[tuple[float, float]]
_FLAT = 0.1  # how far from the first line the others may be
_FORMATS = {"npz": "npz", "json": "JSON"}


@dataclass(frozen=True)
class Line:
    """Points (x, y), by x.

    Attributes:
        label: in the legend; a line without one is not in it.
        colour: lines of one number have one colour.
        guide: whether it is thin and has no marks: nothing was measured there.
    """

    label: str
    points: Points
    colour: int = 0
    dashed: bool = False
    guide: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes.

    Attributes:
        x, y: what the axes show, with its unit.
        base: of a logarithmic x axis with a mark at each point; without one it is linear.
        log_y: whether y is logarithmic; else it begins at 0.
    """

    x: str
    y: str
    lines: list[Line]
    title: str = ""
    base: Literal[2, 10] | None = None
    log_y: bool = False


@dataclass(frozen=True)
class Chart:
    """Panels side by side; `facts` says what they were measured on."""

    name: str
    panels: list[Panel]
    facts: str


def engine_charts(report: EngineReport) -> Iterator[Chart]:
    """Give pages/s by batch, the time of a page by its tokens and, where measured, growth."""
    told = _facts(report.machine, report.setup)
    yield Chart("pages-by-batch", [_by_batch(report)], told)
    yield Chart("page-time-by-tokens", [_by_tokens(report.sizes)], told)
    if report.growth:
        yield Chart("growth", list(_growth(report)), told)


def callers_charts(report: CallersReport) -> Iterator[Chart]:
    """Give latency by load."""
    loads = dict.fromkeys(line.load for line in report.lines)
    panels = [_latency(load, [one for one in report.lines if one.load == load]) for load in loads]
    yield Chart("latency-by-load", panels, _facts(report.machine, report.setup))


def _facts(machine: Mapping[str, object], setup: Mapping[str, object]) -> str:
    return f"{setup['model']} on {setup['device']} ({machine['cpu']}, {machine['cores']} cores)"


def _by_batch(report: EngineReport) -> Panel:
    points: Points = [(one.pages, one.pages_per_second) for one in report.batches]
    return Panel("pages in a forward pass", "pages/s", [Line("A4, prepared", points)], base=2)


def _by_tokens(sizes: Sequence[SizeSpeed]) -> Panel:
    points = sorted((float(one.tokens), one.page_ms) for one in sizes)
    guide = Line("proportional", _proportional(points), guide=True)
    return Panel("tokens of a page", "ms a page", [Line("whole engine", points), guide])


def _proportional(points: Points) -> Points:
    """Return the ends of the straight line through 0 that is nearest to `points`."""
    slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    last = max(x for x, _ in points)
    return [(0.0, 0.0), (last, slope * last)]


def _growth(report: EngineReport) -> Iterator[Panel]:
    values: list[tuple[str, Callable[..., float]]] = [
        ("pages/s", lambda one: one.pages_per_second),
        ("memory, MiB", lambda one: one.memory_mib),
    ]
    for unit, value in values:
        points: Points = [(one.pages, value(one)) for one in report.growth]
        lines = [Line("small pages", points), *_near_the_first(points)]
        yield Panel("pages", unit, lines, base=10)


def _near_the_first(points: Points) -> Iterator[Line]:
    (left, first), (right, _) = points[0], points[-1]
    for label, share in ((f"first, {_FLAT:.0%} more or less", 1 + _FLAT), ("", 1 - _FLAT)):
        yield Line(label, [(left, share * first), (right, share * first)], guide=True)


def _latency(load: str, lines: Sequence[LoadLine]) -> Panel:
    drawn = []
    for colour, (form, name) in enumerate(_FORMATS.items()):
        of_form = [line for line in lines if line.format == form]
        p50: Points = [(line.callers, line.latency.p50_ms) for line in of_form]
        p95: Points = [(line.callers, line.latency.p95_ms) for line in of_form]
        drawn += [Line(f"{name}, p50", p50, colour), Line(f"{name}, p95", p95, colour, dashed=True)]
    return Panel("callers at once", "ms a request", drawn, load, base=2, log_y=True)
