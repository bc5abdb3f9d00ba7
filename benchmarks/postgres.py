"""The store in PostgreSQL beside morphik-core's `max_sim` in SQL."""

import statistics
from collections.abc import Callable, Iterator
from typing import get_args

import click
import numpy as np
import psycopg

from benchmarks import BenchmarkFailed
from benchmarks.machine import time_once
from benchmarks.report import Measurement, Table, make_command, number_option
from pagevec.search.maxsim import maxsim
from pagevec.stores.codec import VectorFormat
from pagevec.stores.hamming import SCAN_FROM
from pagevec.stores.postgres.store import PostgresStore
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import Quantized, dequantize, quantize

_VECTORS, _DIM, _QUERY = 700, 128, 20
_BATCH = 32
_BEST = 10
_RERANKED = 500
_TOPICS = np.random.default_rng(0).standard_normal((64, _DIM)).astype(np.float32)

_MAX_SIM = """
SELECT document_id, chunk_number + 1, max_sim(embeddings, %s::bit(128)[]) AS similarity
FROM multi_vector_embeddings ORDER BY similarity DESC LIMIT %s"""


class ScoresDiffer(BenchmarkFailed):
    """The store and `max_sim` do not agree about the best pages."""


def measure(url: str, pages: int, rounds: int, vectors: VectorFormat) -> Measurement:
    """Measure writing and searching pages of 700 vectors of 128 dimensions, queries of 20.

    Times are medians of the rounds. The database must be empty; what is written is deleted.
    """
    store = PostgresStore(url, vectors=vectors)
    if store.count():
        raise BenchmarkFailed("--url: the database holds pages; name an empty one")
    try:
        rate = _insert(store, pages)
        times = dict(_search_all_ways(store, url, rounds))
    finally:
        store.delete("bench")
        store.close()
    rows = [{"search": name, "ms": seconds * 1000} for name, seconds in times.items()]
    table = Table({"search": "search", "ms": "ms:.1f"}, rows, note=f"insert {rate:.0f} pages/s")
    setup = {"pages": pages, "vectors": vectors, "rounds": rounds}
    return Measurement("postgres", setup, {"rows": table}, {"insert_pages_per_second": rate})


def _insert(store: PostgresStore, pages: int) -> float:
    """Write this many pages; return pages per second of writing, without making them."""
    seconds = 0.0
    for first in range(1, pages + 1, _BATCH):
        numbers = range(first, min(first + _BATCH, pages + 1))
        batch = [
            Page(PageKey("bench", number), _make_vectors(_VECTORS, number)) for number in numbers
        ]
        seconds += time_once(lambda batch=batch: store.add(batch))  # type: ignore[misc]
    return pages / seconds


def _search_all_ways(store: PostgresStore, url: str, rounds: int) -> Iterator[tuple[str, float]]:
    """Yield the name and the seconds of each way to search."""
    query = _make_vectors(_QUERY, 0)

    def rank() -> object:
        return store.candidates(query, _BEST)

    def rank_exactly() -> object:
        pages = store.fetch(store.candidates(query, _RERANKED))
        return maxsim(query, [page.vectors for page in pages])

    yield "first search, fills the cache", time_once(rank)
    yield f"best {_BEST} by bits, cached", _median(rank, rounds)
    yield f"best {_RERANKED} by bits, read and scored exactly", _median(rank_exactly, rounds)
    streaming = PostgresStore(url, cache_bytes=0)
    copying = _median(lambda: streaming.candidates(query, _BEST), rounds)
    streaming.close()
    yield f"best {_BEST} by bits, COPY for each search", copying
    with psycopg.connect(url, autocommit=True) as connection:

        def rank_in_sql() -> list[tuple[str, int, float]]:
            return connection.execute(_MAX_SIM, (_literal(query), _BEST)).fetchall()

        _compare_scores(store, query, rank_in_sql())
        yield f"best {_BEST} by max_sim in SQL, the same scores", time_once(rank_in_sql)


def _compare_scores(
    store: PostgresStore, query: MultiVector, rows: list[tuple[str, int, float]]
) -> None:
    pages = store.fetch(store.candidates(query, _BEST))
    cosines = maxsim(_keep_signs(query), [_keep_signs(page.vectors) for page in pages])
    # max_sim sums 1 - distance / 128 over the query's vectors.
    ours = sorted((len(query) + cosines) / 2, reverse=True)
    if not np.allclose(ours, [score for *_, score in rows], atol=1e-4):
        raise ScoresDiffer(f"best by bits: {ours}, by max_sim: {rows}")


def _make_vectors(count: int, seed: int) -> MultiVector:
    """Return unit vectors (count, 128) around a few topics, as those of a page are."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((count, _DIM), dtype=np.float32)
    values = _TOPICS[generator.integers(0, len(_TOPICS), count)] + noise
    vectors: MultiVector = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def _keep_signs(vectors: MultiVector) -> MultiVector:
    return dequantize(Quantized(quantize(vectors, "binary").values), "binary")


def _literal(vectors: MultiVector) -> str:
    return "{" + ",".join("".join("01"[int(v > 0)] for v in row) for row in vectors) + "}"


def _median(work: Callable[[], object], rounds: int) -> float:
    return statistics.median(time_once(work) for _ in range(rounds))


main = make_command(
    measure,
    click.Option(["--url"], required=True, help="An empty database: postgresql://..."),
    number_option("--pages", SCAN_FROM, least=SCAN_FROM),
    number_option("--rounds", 5),
    click.Option(
        ["--format", "vectors"],
        type=click.Choice(get_args(VectorFormat)),
        default="float16",
        show_default=True,
        help="What is kept beside the sign bits.",
    ),
)

if __name__ == "__main__":
    main()
