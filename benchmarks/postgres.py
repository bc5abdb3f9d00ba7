"""`python -m benchmarks postgres`: the store in PostgreSQL, compared with `max_sim` in SQL."""

import statistics
from collections.abc import Callable
from typing import get_args

import click
import numpy as np
import psycopg

from benchmarks.clock import seconds_of
from pagevec.search.maxsim import maxsim
from pagevec.stores.codec import Format
from pagevec.stores.postgres.store import PostgresStore
from pagevec.stores.sqlite.store import SCAN_FROM
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


class ScoresDiffer(Exception):
    """The store and `max_sim` do not agree about the best pages."""


@click.command("postgres")
@click.option("--url", required=True, help="An empty database: postgresql://...")
@click.option("--pages", type=click.IntRange(min=SCAN_FROM), default=SCAN_FROM, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--format", "form", type=click.Choice(get_args(Format)), default="float16", show_default=True
)
def command(url: str, pages: int, rounds: int, form: Format) -> None:
    """Measure writing and searching pages of 700 vectors of 128 dimensions, queries of 20."""
    store = PostgresStore(url, vectors=form)
    if store.count():
        raise click.ClickException("the database holds pages: take an empty one")
    try:
        click.echo(f"insert, {form}: {_inserted(store, pages):.0f} pages/s")
        _compare(store, url, rounds)
    except ScoresDiffer as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.delete("bench")
        store.close()


def _inserted(store: PostgresStore, pages: int) -> float:
    """Write that many pages and return how many a second; making them does not count."""
    seconds = 0.0
    for first in range(1, pages + 1, _BATCH):
        numbers = range(first, min(first + _BATCH, pages + 1))
        batch = [Page(PageKey("bench", number), _vectors(_VECTORS, number)) for number in numbers]
        seconds += seconds_of(lambda batch=batch: store.add(batch))  # type: ignore[misc]
    return pages / seconds


def _compare(store: PostgresStore, url: str, rounds: int) -> None:
    query = _vectors(_QUERY, 0)
    click.echo(f"first search, fills the cache: {_ms(lambda: store.candidates(query, _BEST), 1)}")
    best = _ms(lambda: store.candidates(query, _BEST), rounds)
    click.echo(f"best {_BEST} by bits, cached: {best}")
    exact = _ms(lambda: _search(store, query), rounds)
    click.echo(f"best {_RERANKED} by bits, read and scored exactly: {exact}")
    streaming = PostgresStore(url, cache_bytes=0)
    copied = _ms(lambda: streaming.candidates(query, _BEST), rounds)
    streaming.close()
    click.echo(f"best {_BEST} by bits, COPY for each search: {copied}")
    with psycopg.connect(url, autocommit=True) as connection:
        theirs = connection.execute(_MAX_SIM, (_literal(query), _BEST)).fetchall()
        _check(store, query, theirs)
        sql = _ms(lambda: connection.execute(_MAX_SIM, (_literal(query), _BEST)).fetchall(), 1)
    click.echo(f"best {_BEST} by max_sim in SQL, the same scores: {sql}")


def _search(store: PostgresStore, query: MultiVector) -> None:
    pages = store.fetch(store.candidates(query, _RERANKED))
    maxsim(query, [page.vectors for page in pages])


def _check(store: PostgresStore, query: MultiVector, theirs: list[tuple[str, int, float]]) -> None:
    pages = store.fetch(store.candidates(query, _BEST))
    cosines = maxsim(_signs(query), [_signs(page.vectors) for page in pages])
    # Their similarity is 1 - distance / 128, for each of the query's vectors.
    ours = sorted((len(query) + cosines) / 2, reverse=True)
    if not np.allclose(ours, [score for *_, score in theirs], atol=1e-4):
        raise ScoresDiffer(f"best by bits: {ours}, by max_sim: {theirs}")


def _vectors(count: int, seed: int) -> MultiVector:
    """Return unit vectors around a few topics, as those of a page are."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((count, _DIM), dtype=np.float32)
    values = _TOPICS[generator.integers(0, len(_TOPICS), count)] + noise
    vectors: MultiVector = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def _signs(vectors: MultiVector) -> MultiVector:
    return dequantize(Quantized(quantize(vectors, "binary").values), "binary")


def _literal(vectors: MultiVector) -> str:
    return "{" + ",".join("".join("01"[int(v > 0)] for v in row) for row in vectors) + "}"


def _ms(work: Callable[[], object], rounds: int) -> str:
    return f"{1000 * statistics.median(seconds_of(work) for _ in range(rounds)):.1f} ms"
