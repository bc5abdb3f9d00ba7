"""A store of up to a million pages: time, memory, disk and recall of a search by size.

Pages are real ones whose vectors were moved by what tells real pages apart, as in
`benchmarks.spread`; each vector is one of some moved ones, so that a page costs a lookup instead of
a multiplication with all centroids. They are written into the tables of a store in a folder, and
into its lists by what a store itself writes them with.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks import BenchmarkFailed
from benchmarks.growth import time_searches
from benchmarks.report import Measurement, Row, Table, make_command
from benchmarks.services import Service, serve_pagevec
from benchmarks.spread import REAL_OPTIONS, RealMultiVectors, Spread, find_real_pages
from pagevec.client import Client
from pagevec.stores.centroids import Centroids
from pagevec.stores.sqlite import segments, words
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import MultiVector

_Form = Literal["float16", "binary"]
_TOP = 10
_VARIANTS = 32
"""Moved ones of each vector of a real page."""
_BATCH = 16 * segments.SEGMENT
_TRAINING = 600
_MIB = 2**20
_SIZES = (20_000, 100_000, 300_000, 1_000_000)
_COLUMNS = {
    "pages": "pages",
    "just written, query ms (median)": "written_ms:.0f",
    "first query ms": "first_ms:.0f",
    "query ms (median)": "query_ms:.0f",
    "slowest ms": "slowest_ms:.0f",
    "command ms": "command_ms:.0f",
    "recall@10": "recall:.3f",
    "memory MiB": "memory_mib:.0f",
    "disk MiB": "disk_mib:.0f",
    "ms to write a page": "write_ms:.2f",
}


def measure(
    pages: tuple[int, ...],
    queries: int,
    vectors: _Form,
    command: bool,
    program: Path | None,
    documents: Path,
    folder: Path | None,
    embedded: Path | None,
) -> Measurement:
    """Search a store at several sizes, up to a million pages that lie as real ones do.

    One process searches right after the pages were written, when few of them are in the system's
    cache; all other figures are of a second one after it. The first query is that of a process that
    has just opened the store. Recall is the share of the ten best pages by exact MaxSim: of a store
    of bits, that of the query's numbers with all bits. Memory is resident, with mapped files, at
    the end of all queries. `--command` measures `pagevec search` as well, from the start of its
    process to its end, less the time in which the service embeds its query.
    """
    started = [str(program)] if program else [sys.executable, "-m", "pagevec"]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        scratch = Path(temporary)
        file = find_real_pages(embedded, documents, scratch)
        real = RealMultiVectors.load(file)
        with serve_pagevec(Path("bundled")) if command else nullcontext() as service:
            timed = (service, started) if service else None
            rows = list(_measure_sizes(real, queries, vectors, sorted(pages), scratch, timed))
    setup = {"model": "bundled", "device": "cpu", "vectors": vectors, "queries": queries}
    return Measurement("million", setup, {"sizes": Table(_COLUMNS, rows, words=0)})


def _measure_sizes(
    real: RealMultiVectors,
    queries: int,
    form: _Form,
    sizes: Sequence[int],
    scratch: Path,
    timed: tuple[Service, Sequence[str]] | None = None,
) -> Iterator[Row]:
    pages = _Pages.of(real, form)
    step = max(1, len(real.queries) // queries)
    asked = slice(0, queries * step, step)
    scores = pages.score_all(real.queries[asked], sizes[-1])
    np.savez(scratch / "queries.npz", *real.queries[asked])
    folder, written = scratch / "store", 0
    for size in sizes:
        started = time.perf_counter()
        _write(pages, range(written, size), folder)
        seconds, more, written = time.perf_counter() - started, size - written, size
        best = np.argsort(-scores[:, :size], axis=1, kind="stable")[:, :_TOP] + 1
        just_written = _search_apart(folder, scratch / "queries.npz")
        searched = _search_apart(folder, scratch / "queries.npz")
        pairs = zip(searched.pop("found"), best.tolist(), strict=True)
        hits = [set(found) & set(ten) for found, ten in pairs]
        yield {
            "pages": size,
            "written_ms": just_written["query_ms"],
            "write_ms": 1000 * seconds / more,
            "recall": sum(map(len, hits)) / best.size,
            "disk_mib": sum(one.stat().st_size for one in folder.iterdir()) / _MIB,
            **searched,
            "command_ms": timed and _time_command(folder, real.words[asked], *timed),
        }


@dataclass(frozen=True, eq=False)
class _Pages:
    """Pages without end, the same ones each time, of moved vectors of real ones.

    Attributes:
        form: how the store keeps vectors.
        centroids: those of the store's lists.
        bits: sign bits of the moved vectors of each real page, uint8 (variants, vectors, bytes).
        halves: the vectors themselves, float16 (variants, vectors, dim), if they are kept.
        places: the centroid of each, uint16 (variants, vectors).
        texts: of the real pages, and their terms.
    """

    form: _Form
    centroids: Centroids
    bits: list[NDArray[np.uint8]]
    halves: list[NDArray[np.float16]]
    places: list[NDArray[np.uint16]]
    texts: list[tuple[str, str]]

    @classmethod
    def of(cls, real: RealMultiVectors, form: _Form) -> "_Pages":
        spread = Spread(real)
        sample = [vectors for vectors, _ in islice(spread, _TRAINING)]
        centroids = Centroids.train(np.concatenate(sample))
        bits, halves, places = [], [], []
        chance = np.random.default_rng(7)
        for vectors in real.pages:
            moved = [spread.move(vectors, chance) for _ in range(_VARIANTS)]
            bits.append(np.stack([np.packbits(one > 0, axis=1) for one in moved]))
            places.append(np.stack([centroids.assign(one).astype(np.uint16) for one in moved]))
            halves += [np.stack(moved).astype(np.float16)] if form == "float16" else []
        texts = [(text, words.as_row(text)) for text in real.texts]
        return cls(form, centroids, bits, halves, places, texts)

    def choose(self, number: int) -> tuple[int, NDArray[np.int64]]:
        """Return the real page that a page resembles, and the variant of each of its vectors."""
        chance = np.random.default_rng((11, number))
        place = int(chance.integers(len(self.bits)))
        variants = chance.integers(_VARIANTS, size=self.bits[place].shape[1])
        return place, np.asarray(variants, np.int64)

    def score_all(self, queries: Sequence[MultiVector], count: int) -> NDArray[np.float32]:
        """Return MaxSim of queries and all pages, float32 (queries, pages)."""
        stacked = np.concatenate(queries)
        starts = np.cumsum([0, *(len(query) for query in queries[:-1])])
        chosen: dict[int, list[int]] = {}
        for number in range(count):
            chosen.setdefault(self.choose(number)[0], []).append(number)
        scores = np.empty((len(queries), count), np.float32)
        for place, numbers in chosen.items():
            products = self._vectors(place) @ stacked.T
            for number in numbers:
                best = _best_products(products, self.choose(number)[1])
                scores[:, number] = np.add.reduceat(best, starts)
        return scores

    def _vectors(self, place: int) -> NDArray[np.float32]:
        if self.halves:
            return self.halves[place].astype(np.float32)
        signs = 2 * np.unpackbits(self.bits[place], axis=2).astype(np.float32) - 1
        return np.asarray(signs / signs.shape[2] ** 0.5, np.float32)


@njit  # type: ignore[untyped-decorator] # a tenth of numpy's time: that of a million pages is 1 h
def _best_products(
    products: NDArray[np.float32], variants: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the highest product of each column in the rows of `variants`.

    Args:
        products: of all variants of each vector of a real page, (variants, vectors, columns).
        variants: the one of each vector, (vectors,).
    """
    best = np.full(products.shape[2], -np.inf, np.float32)
    for row, variant in enumerate(variants):
        for column in range(len(best)):
            best[column] = max(best[column], products[variant, row, column])
    return best


def _write(pages: _Pages, numbers: range, folder: Path) -> None:
    """Append pages to the store in `folder`, with their lists."""
    with SqliteStore(folder, pages.form) as store:
        for first in range(numbers.start, numbers.stop, _BATCH):
            batch = range(first, min(first + _BATCH, numbers.stop))
            with store._database.writing() as connection:
                _write_batch(pages, batch, connection)
            while store.index_pages():  # the file of bits
                pass


def _write_batch(pages: _Pages, numbers: range, connection: sqlite3.Connection) -> None:
    if not numbers.start:
        connection.execute("UPDATE store SET dim = ?", [pages.centroids.dim])
        segments.save_centroids(connection, pages.centroids)
    connection.execute("UPDATE store SET revision = revision + 1")
    [(revision,)] = connection.execute("SELECT revision FROM store")
    ids, assigned = [], []
    for number in numbers:
        place, variants = pages.choose(number)
        rows = np.arange(len(variants))
        packed = pages.bits[place][variants, rows].tobytes()
        vectors = pages.halves[place][variants, rows].tobytes() if pages.halves else None
        text, terms = pages.texts[place]
        connection.execute(
            "INSERT INTO pages VALUES (?, 'spread', ?, ?, '{}', NULL)",
            (number + 1, number + 1, revision),
        )
        connection.execute("INSERT INTO bits VALUES (?, ?)", (number + 1, packed))
        connection.execute(
            "INSERT INTO contents VALUES (?, ?, ?, NULL)", (number + 1, vectors, text)
        )
        words.index(connection, number + 1, terms)
        ids.append(np.full(len(rows), number + 1, np.uint32))
        assigned.append(pages.places[place][variants, rows].astype(np.int64))
    segments.write_segment(connection, np.concatenate(ids), np.concatenate(assigned))
    connection.execute("UPDATE centroids SET revision = ?", [revision])
    segments.merge_segments(connection, np.zeros(numbers.stop + 1, np.bool_))


def _search_apart(folder: Path, queries: Path) -> dict[str, Any]:
    """Search in a process that has done nothing else."""
    done = subprocess.run(  # noqa: S603 - this program
        [sys.executable, "-m", "benchmarks.million", "--child", str(folder), str(queries)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFailed(f"the search ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _search(folder: str, queries: str) -> dict[str, Any]:
    with np.load(queries) as saved:
        asked = [saved[name] for name in saved.files]
    taken, found, memory = time_searches(Path(folder), [asked[-1], *asked])
    return {
        "first_ms": taken[0],
        "query_ms": float(np.median(taken[1:])),
        "slowest_ms": max(taken[1:]),
        "memory_mib": memory,
        "found": found[1:],
    }


def _time_command(
    folder: Path, queries: Sequence[str], service: Service, program: Sequence[str]
) -> float:
    """Return the milliseconds of `pagevec search`, less those of its embedding request: medians."""
    options = ("--store", str(folder), "--url", service.url, "--key", service.key, "--json")
    commands, requests = [], []
    with Client(service.url, service.key) as client:
        for query in queries:
            command = [*program, "search", query, *options]
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
            commands.append(time.perf_counter() - started)
            started = time.perf_counter()
            client.embed_query(query)
            requests.append(time.perf_counter() - started)
    return 1000 * float(np.median(commands) - np.median(requests))


main = make_command(
    measure,
    click.Option(
        ["--pages"],
        type=click.IntRange(2000),
        multiple=True,
        default=_SIZES,
        show_default=True,
        help="Size at which the store is searched (repeatable).",
    ),
    click.Option(["--queries"], type=click.IntRange(2), default=24, show_default=True),
    click.Option(
        ["--vectors"],
        type=click.Choice(["float16", "binary"]),
        default="binary",
        show_default=True,
        help="How the store keeps vectors.",
    ),
    click.Option(["--command"], is_flag=True, help="Measure the command as well."),
    click.Option(
        ["--program"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The `pagevec` whose command that is; default: this environment's, whose packages for "
        "tests make httpx import more.",
    ),
    *REAL_OPTIONS,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_search(*sys.argv[2:])))
    else:
        main()
