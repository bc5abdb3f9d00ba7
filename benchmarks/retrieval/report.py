"""The figures of retrieval, as Markdown tables and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.output import facts, table
from benchmarks.retrieval.metrics import Quality

Ranks = NDArray[np.int64]
Chosen = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """Qualities, by row and column."""

    title: str
    cells: dict[str, dict[str, Quality]]

    @classmethod
    def of_groups(
        cls, title: str, rows: Mapping[str, Chosen], models: Mapping[str, Ranks]
    ) -> "Table":
        """Return a table with a row for each group of queries and a column for each model."""
        cells = {
            row: {name: Quality.of(found[chosen]) for name, found in models.items()}
            for row, chosen in rows.items()
        }
        return cls(title, cells)

    def markdown(self) -> str:
        """Return the table; each cell is recall@1 and nDCG@5."""
        columns = list(next(iter(self.cells.values())))
        rows = [[row, *map(_cell, cells.values())] for row, cells in self.cells.items()]
        return table([self.title, *columns], rows)


@dataclass(frozen=True)
class Report:
    """All figures of one run, and what they were measured on."""

    facts: Mapping[str, object]
    tables: list[Table]

    def markdown(self) -> str:
        """Return all tables; each cell is recall@1, nDCG@5 and the number of queries."""
        legend = "each cell: recall@1 / nDCG@5 (queries)"
        below = f"{facts(self.facts)}; {legend}"
        return "\n\n".join([*(one.markdown() for one in self.tables), below])


def quality_by(
    title: str, forms: Mapping[str, Ranks], groups: Mapping[str, Chosen] | None = None
) -> Table:
    """Return a table with a row for each form and a column for each group (default: all)."""
    if groups is None:
        groups = {"all": np.ones(len(next(iter(forms.values()))), dtype=np.bool_)}
    cells = {
        form: {name: Quality.of(found[chosen]) for name, chosen in groups.items()}
        for form, found in forms.items()
    }
    return Table(title, cells)


def _cell(quality: Quality) -> str:
    if not quality.queries:
        return ""
    return f"{quality.recall:.2f} / {quality.ndcg:.2f} ({quality.queries})"
