"""Figures as a Markdown table, and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.answers import TOLERANCE
from benchmarks.output import facts, table

_COLUMNS = (
    "load",
    "service",
    "inputs/s (lowest to highest round)",
    "x plain loop",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "kB each",
)


@dataclass(frozen=True)
class Latency:
    """How long requests took, in milliseconds."""

    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        """Return the percentiles of these times."""
        p50, p95, p99 = (np.percentile(seconds, [50, 95, 99]) * 1000).tolist()
        return cls(len(seconds), p50, p95, p99)

    def cells(self) -> list[str]:
        """Return what stands in the table."""
        return [f"{ms:.1f}" for ms in (self.p50_ms, self.p95_ms, self.p99_ms)]


@dataclass(frozen=True)
class Rate:
    """How much was done.

    Attributes:
        of_rounds: inputs per second; median: of them.
        ratio: to the plain loop in the same round, the median of the rounds.
        bytes_each: of the answer, for each input.
    """

    median: float
    of_rounds: list[float]
    ratio: float
    bytes_each: float


@dataclass(frozen=True)
class Row:
    """One line of the table; where single requests are watched, there is no rate."""

    load: str
    service: str
    latency: Latency
    rate: Rate | None = None

    def cells(self) -> list[str]:
        """Return what stands in the table."""
        if self.rate is None:
            return [self.load, self.service, "", "", *self.latency.cells(), ""]
        lowest, highest = min(self.rate.of_rounds), max(self.rate.of_rounds)
        rate = f"{self.rate.median:.1f} ({lowest:.1f} to {highest:.1f})"
        size = f"{self.rate.bytes_each / 1000:.0f}"
        ratio = f"{self.rate.ratio:.1f}"
        return [self.load, self.service, rate, ratio, *self.latency.cells(), size]


@dataclass(frozen=True)
class Report:
    """All figures of one run.

    Attributes:
        setup: what was sent, how often.
        largest_difference: between any two numbers of the services' answers.
    """

    machine: Mapping[str, object]
    setup: Mapping[str, object]
    largest_difference: float
    rows: list[Row]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        lines = table(_COLUMNS, [row.cells() for row in self.rows], names=2)
        equal = f"answers differ by {self.largest_difference:.0e} at most, {TOLERANCE:.0e} allowed"
        return f"{lines}\n\n{facts(self.machine, self.setup)}; {equal}"
