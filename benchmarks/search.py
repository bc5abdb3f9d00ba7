"""`python -m benchmarks search`: the embedded store, filled, opened and searched."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import psutil

from benchmarks.machine import machine
from benchmarks.output import facts, give, json_option, table
from benchmarks.planted import RELEVANT, PlantedPages
from pagevec.search.retriever import Retriever
from pagevec.stores.sqlite.store import EmbeddedStore

_MIB = 2**20
_COLUMNS = ["pages", "insert pages/s", "open s", "query ms", "recall@10", "memory MiB", "disk MiB"]


@dataclass(frozen=True)
class SearchReport:
    """All figures of one run.

    Attributes:
        open_seconds: until the first search can begin: the file opened, the sign bits read.
        query_ms: the median of searches for ten pages.
        recall: of the ten best pages by float32 MaxSim, the share that a search finds.
        memory_mib: of the process while it searches, without mapped files.
    """

    machine: dict[str, str | int]
    pages: int
    queries: int
    insert_pages_per_second: float
    open_seconds: float
    query_ms: float
    recall: float
    memory_mib: float
    disk_mib: float

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        cells = [
            f"{self.pages}",
            f"{self.insert_pages_per_second:.0f}",
            f"{self.open_seconds:.2f}",
            f"{self.query_ms:.0f}",
            f"{self.recall:.3f}",
            f"{self.memory_mib:.0f}",
            f"{self.disk_mib:.0f}",
        ]
        lines = table(_COLUMNS, [cells], names=0)
        return f"{lines}\n\n{facts(self.machine)}; {self.queries} queries"


def run_search(pages: int, queries: int, folder: Path) -> SearchReport:
    """Fill a store in the empty `folder` with `pages` synthetic pages and search it."""
    planted = PlantedPages(pages, queries)
    rate = pages / _fill(folder, planted)
    start = time.perf_counter()
    store = EmbeddedStore(folder)
    store.candidates(planted.queries[0], RELEVANT)
    opened = time.perf_counter() - start
    times, recall = _search(store, planted)
    report = SearchReport(
        machine=machine(),
        pages=pages,
        queries=queries,
        insert_pages_per_second=rate,
        open_seconds=opened,
        query_ms=float(np.median(times) * 1000),
        recall=recall,
        memory_mib=_memory(),
        disk_mib=sum(file.stat().st_size for file in folder.iterdir()) / _MIB,
    )
    store.close()
    return report


def _fill(folder: Path, planted: PlantedPages) -> float:
    """Insert all pages, and return the seconds without those that it takes to make them up."""
    store, seconds = EmbeddedStore(folder), 0.0
    for batch in planted.batches():
        start = time.perf_counter()
        store.add(batch)
        seconds += time.perf_counter() - start
    store.close()
    return seconds


def _search(store: EmbeddedStore, planted: PlantedPages) -> tuple[list[float], float]:
    """Return the seconds of each search, and the recall of them all."""
    retriever, times, found = Retriever(planted, store), list[float](), 0
    for query in range(len(planted.queries)):
        start = time.perf_counter()
        hits = retriever.search(str(query), RELEVANT)
        times.append(time.perf_counter() - start)
        found += len(planted.best(query) & {hit.key.number for hit in hits})
    return times, found / (RELEVANT * len(planted.queries))


def _memory() -> float:
    """Return the memory of this process in MiB. Mapped files are the system's cache, not ours."""
    used = psutil.Process().memory_info()
    return float(used.rss - getattr(used, "shared", 0)) / _MIB


@click.command("search")
@click.option("--pages", type=click.IntRange(min=500), default=5000, show_default=True)
@click.option("--queries", type=click.IntRange(1, 50), default=20, show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="For the store.")
@json_option
def command(pages: int, queries: int, folder: Path | None, file: Path | None) -> None:
    """Measure the embedded store: inserting, opening, searching, and whether it finds the best."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        report = run_search(pages, queries, Path(temporary))
    give("search", report, file)
