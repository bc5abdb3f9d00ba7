"""The store in a folder: filled, opened and searched for planted near-duplicates."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import psutil

from benchmarks.machine import time_once
from benchmarks.report import Measurement, Table, make_command, number_option
from pagevec.search.maxsim import maxsim
from pagevec.search.retriever import Retriever
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import MultiVector, Page, PageKey

DIM = 128
PAGE_VECTORS = 700
QUERY_VECTORS = 20
RELEVANT = 10
_BATCH = 50
_TOPICS = 256
_MIB = 2**20
_COLUMNS = {
    "pages": "pages",
    "insert pages/s": "insert_pages_per_second:.0f",
    "open s": "open_seconds:.2f",
    "query ms": "query_ms:.0f",
    "recall@10": "recall:.3f",
    "memory MiB": "memory_mib:.0f",
    "disk MiB": "disk_mib:.0f",
}


class PlantedPages:
    """Synthetic pages with known answers: ten pages resemble each query, each less than the last.

    Attributes:
        queries: float32 (20, 128) each; the same ones in every run, as are the pages.
    """

    def __init__(self, pages: int, queries: int) -> None:
        self._random = np.random.default_rng(0)
        self._topics = self._noise(_TOPICS)
        self._pages = pages
        self.queries = [self._vectors(QUERY_VECTORS) for _ in range(queries)]
        places = self._random.choice(pages, (queries, RELEVANT), replace=False).tolist()
        self._planted = {
            place: (self.queries[query], rank)
            for query, row in enumerate(places)
            for rank, place in enumerate(row)
        }
        self._scores = [np.empty(0, np.float32) for _ in self.queries]

    def batches(self) -> Iterator[list[Page]]:
        """Yield all pages once, a few at a time: pages 1, 2, ... of one document."""
        for first in range(0, self._pages, _BATCH):
            numbers = range(first, min(first + _BATCH, self._pages))
            pages = [self._page(number) for number in numbers]
            self._scores = [
                np.append(scores, maxsim(query, [page.vectors for page in pages]))
                for query, scores in zip(self.queries, self._scores, strict=True)
            ]
            yield pages

    def best(self, query: int) -> frozenset[int]:
        """Return the numbers of the ten pages with the highest float32 MaxSim, after `batches`."""
        order = np.argsort(-self._scores[query], kind="stable")
        return frozenset((order[:RELEVANT] + 1).tolist())

    def _page(self, place: int) -> Page:
        vectors = self._vectors(PAGE_VECTORS)
        if place in self._planted:
            query, rank = self._planted[place]
            strength = 0.4 + 0.1 * rank
            vectors[:QUERY_VECTORS] = _normalize(query + strength * self._noise(QUERY_VECTORS))
        return Page(PageKey("planted", place + 1), vectors)

    def _vectors(self, count: int) -> MultiVector:
        topics = self._random.integers(_TOPICS, size=count)
        return _normalize(self._topics[topics] + self._noise(count))

    def _noise(self, count: int) -> MultiVector:
        """Return vectors (count, 128) of about unit length in any direction."""
        return self._random.standard_normal((count, DIM), dtype=np.float32) / np.float32(DIM**0.5)


def measure(pages: int, queries: int, folder: Path | None) -> Measurement:
    """Measure the store in a folder: inserting, opening, searching, and recall of the best pages.

    Opening lasts until the first search can begin; memory is without mapped files; the time of a
    query is the median.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        return measure_store(Path(temporary), pages, queries)


def measure_store(folder: Path, pages: int, queries: int) -> Measurement:
    """Fill a store in the empty `folder` with synthetic pages and search it."""
    planted = PlantedPages(pages, queries)
    rate = pages / _fill(folder, planted)
    start = time.perf_counter()
    store = SqliteStore(folder)
    store.candidates(planted.queries[0], RELEVANT)
    opened = time.perf_counter() - start
    taken, recall = _search(store, planted)
    row = {
        "pages": pages,
        "insert_pages_per_second": rate,
        "open_seconds": opened,
        "query_ms": float(np.median(taken) * 1000),
        "recall": recall,
        "memory_mib": _measure_memory(),
        "disk_mib": sum(file.stat().st_size for file in folder.iterdir()) / _MIB,
    }
    store.close()
    return Measurement("search", {"queries": queries}, {"rows": Table(_COLUMNS, [row], words=0)})


def _fill(folder: Path, planted: PlantedPages) -> float:
    """Insert all pages; return the seconds of inserting, without those of making them."""
    store, seconds = SqliteStore(folder), 0.0
    for batch in planted.batches():
        seconds += time_once(lambda batch=batch: store.add(batch))  # type: ignore[misc]
    store.close()
    return seconds


def _search(store: SqliteStore, planted: PlantedPages) -> tuple[list[float], float]:
    """Return the seconds of each search, and the recall over all of them."""
    retriever = Retriever(cast(Any, None), store)  # its model is asked for queries in words only
    taken, found = list[float](), 0
    for number, query in enumerate(planted.queries):
        start = time.perf_counter()
        hits = retriever.search_vectors(query, RELEVANT)
        taken.append(time.perf_counter() - start)
        found += len(planted.best(number) & {hit.key.number for hit in hits})
    return taken, found / (RELEVANT * len(planted.queries))


def _measure_memory() -> float:
    used = psutil.Process().memory_info()
    # Pages of mapped files belong to the system's cache, not to this process.
    return float(used.rss - getattr(used, "shared", 0)) / _MIB


def _normalize(vectors: MultiVector) -> MultiVector:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


main = make_command(
    measure,
    number_option("--pages", 5000, least=500),
    click.Option(["--queries"], type=click.IntRange(1, 50), default=20, show_default=True),
    click.Option(
        ["--folder"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Where the store's temporary folder is made.",
    ),
)

if __name__ == "__main__":
    main()
