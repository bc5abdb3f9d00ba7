"""A store in a folder as it grows: time, memory, disk, recall, beside a former commit."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import psutil

from benchmarks import BenchmarkFailed
from benchmarks.report import Measurement, Row, Table, make_command
from benchmarks.spread import REAL_OPTIONS, RealMultiVectors, Spread, find_real_pages
from pagevec.search.retriever import Retriever
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import MultiVector, Page, PageKey

_ROOT = Path(__file__).parents[1]
_BATCH = 64
_TOP = 10
_MIB = 2**20
_COLUMNS = {
    "store": "store",
    "pages": "pages",
    "ms to add a page": "add_ms:.1f",
    "longest add, s": "longest_add:.1f",
    "first query ms": "first_ms:.0f",
    "query ms (median)": "query_ms:.0f",
    "recall@10": "recall:.3f",
    "memory MiB": "memory_mib:.0f",
    "disk MiB": "disk_mib:.0f",
}


def measure(
    pages: tuple[int, ...],
    queries: int,
    vectors: str,
    documents: Path,
    folder: Path | None,
    former: Path | None,
    embedded: Path | None,
) -> Measurement:
    """Fill a store with pages that lie as real ones do, and search it at each size.

    Pages are real ones whose vectors were moved by what tells real pages apart
    (`benchmarks.spread`); queries are of three rarer words. The present commit keeps
    near-duplicate vectors of a page once, a former one keeps them all. Recall is the share of the
    ten best pages by exact MaxSim, in float32 or, of a store of bits alone, of the query against
    all bits. Memory is resident, with mapped files.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        scratch = Path(temporary)
        file = find_real_pages(embedded, documents, scratch)
        asked = (str(scratch), str(file), json.dumps(sorted(pages)), str(queries), vectors)
        rows = [*_run("this commit", _ROOT, *asked)]
        if former is not None:
            rows += _run("former commit", former, *asked)
    setup = {"queries": queries, "vectors": vectors}
    return Measurement("growth", setup, {"sizes": Table(_COLUMNS, rows)})


def _run(name: str, checkout: Path, *arguments: str) -> list[Row]:
    """Return the rows of one commit, measured in a process that imports its `pagevec`."""
    path = os.pathsep.join([str(checkout / "src"), str(_ROOT)])
    done = subprocess.run(  # noqa: S603 - this program
        [sys.executable, "-m", "benchmarks.growth", "--child", name, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFailed(f"{name}, in {checkout}: it ended with {done.returncode}")
    rows: list[Row] = json.loads(done.stdout)
    return rows


def _measure_here(
    name: str, scratch: str, file: str, sizes: str, queries: str, form: str
) -> list[Row]:
    """Fill and search a store of the `pagevec` that this process imports."""
    real = RealMultiVectors.load(Path(file))
    asked = real.queries[:: max(1, len(real.queries) // int(queries))][: int(queries)]
    folder, rows = Path(scratch) / name.replace(" ", "-"), list[Row]()
    made, best = _pages(real, whole=name != "this commit"), _Best(asked, bits=form == "binary")
    with SqliteStore(folder, cast(Any, form)) as store:
        there = 0
        for size in json.loads(sizes):
            taken = []
            while there < size:
                vectors, batch = zip(*islice(made, min(_BATCH, size - there)), strict=True)
                best.see(vectors)
                started = time.perf_counter()
                store.add(batch)
                taken.append(time.perf_counter() - started)
                there += len(batch)
            searched = _search(folder, asked, best)
            disk = sum(file.stat().st_size for file in folder.iterdir()) / _MIB
            rows.append(
                {
                    "store": f"{name}, {form}",
                    "pages": size,
                    "add_ms": 1000 * sum(taken) / max(1, len(taken) * _BATCH),
                    "longest_add": max(taken),
                    "disk_mib": disk,
                    **searched,
                }
            )
    return rows


def _pages(real: RealMultiVectors, *, whole: bool) -> Iterator[tuple[MultiVector, Page]]:
    """Yield the distinct vectors of each page, and the page as it is stored."""
    for number, (vectors, rows) in enumerate(Spread(real), start=1):
        key = PageKey("spread", number)
        yield vectors, Page(key, vectors[rows]) if whole else Page(key, vectors, token_rows=rows)


class _Best:
    """The best pages by exact MaxSim, found while pages are made.

    Args:
        queries: multi-vectors.
        bits: whether pages are kept as sign bits alone.
    """

    def __init__(self, queries: Sequence[MultiVector], *, bits: bool) -> None:
        self._stacked = np.concatenate(queries)
        self._starts = np.cumsum([0, *(len(query) for query in queries[:-1])])
        self._bits, self._seen = bits, 0
        self._scores = np.empty((len(queries), 0), np.float32)
        self._numbers = np.empty((len(queries), 0), np.int64)

    def see(self, pages: Sequence[MultiVector]) -> None:
        """Score the next pages, which are numbered from 1."""
        scores = np.stack([self._score(vectors) for vectors in pages], axis=1)
        numbers = np.broadcast_to(np.arange(len(pages)) + self._seen + 1, scores.shape)
        self._seen += len(pages)
        self._scores = np.concatenate([self._scores, scores], axis=1)
        self._numbers = np.concatenate([self._numbers, numbers], axis=1)
        order = np.argsort(-self._scores, axis=1, kind="stable")[:, :_TOP]
        self._scores = np.take_along_axis(self._scores, order, axis=1)
        self._numbers = np.take_along_axis(self._numbers, order, axis=1)

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """Return the share of the best pages that are in `found`, over all queries."""
        hits = [
            len(set(one) & set(best.tolist()))
            for one, best in zip(found, self._numbers, strict=True)
        ]
        return sum(hits) / self._numbers.size

    def _score(self, vectors: MultiVector) -> np.ndarray:
        if self._bits:
            vectors = np.where(vectors > 0, 1, -1).astype(np.float32) / vectors.shape[1] ** 0.5
        products = (vectors @ self._stacked.T).max(axis=0)
        return np.asarray(np.add.reduceat(products, self._starts), np.float32)


def _search(folder: Path, queries: Sequence[MultiVector], best: _Best) -> dict[str, float]:
    taken, found, memory = time_searches(folder, queries)
    return {
        "first_ms": taken[0],
        "query_ms": float(np.median(taken[1:])),
        "recall": best.recall(found),
        "memory_mib": memory,
    }


def time_searches(
    folder: Path, queries: Sequence[MultiVector]
) -> tuple[list[float], list[list[int]], float]:
    """Search with a store that was just opened, as a process that starts has it.

    Returns:
        For each query its milliseconds and the numbers of the best pages; MiB of resident memory.
    """
    taken, found = [], []
    with SqliteStore(folder) as store:
        retriever = Retriever(cast(Any, None), store)
        for query in queries:
            started = time.perf_counter()
            hits = retriever.search_vectors(query, _TOP)
            taken.append(1000 * (time.perf_counter() - started))
            found.append([hit.key.number for hit in hits])
        memory = psutil.Process().memory_info().rss / _MIB
    return taken, found, memory


_PATH = click.Path(exists=True, file_okay=False, path_type=Path)
main = make_command(
    measure,
    click.Option(
        ["--pages"],
        type=click.IntRange(100),
        multiple=True,
        default=(2000, 20_000),
        show_default=True,
        help="Size at which the store is searched (repeatable).",
    ),
    click.Option(["--queries"], type=click.IntRange(2), default=24, show_default=True),
    click.Option(
        ["--vectors"],
        type=click.Choice(["float16", "int8", "binary"]),
        default="float16",
        show_default=True,
        help="How the store keeps vectors.",
    ),
    *REAL_OPTIONS,
    click.Option(["--former"], type=_PATH, help="Checkout of a former commit, measured beside."),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_measure_here(*sys.argv[2:])))
    else:
        main()
