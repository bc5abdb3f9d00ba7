"""`python -m benchmarks pooling`: token pooling beside colpali-engine's own."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks import inputs
from benchmarks.clock import seconds_of
from benchmarks.machine import machine
from benchmarks.models import name_of
from benchmarks.output import facts, give, json_option, table
from benchmarks.sizes import SIZES
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.bundled import bundled_checkpoint
from pagevec.engine.models.loader import load
from pagevec.engine.models.torchvision_fix import import_torchvision
from pagevec.engine.pooling import pool
from pagevec.settings import Settings
from pagevec.types import MultiVector

_PAGES = ("A4", "A5", "A6")
_COLUMNS = (
    "page", "vectors", "pooled", "colpali-engine ms", "pagevec ms", "times", "largest difference",
)  # fmt: skip


@dataclass(frozen=True)
class Pooled:
    """Pages of one size, pooled by both; the milliseconds are of one page, one thread.

    Attributes:
        vectors, pooled: of a page, before and after.
        difference: the largest between two numbers of their vectors.
    """

    page: str
    vectors: int
    pooled: int
    colpali_ms: float
    pagevec_ms: float
    difference: float


@dataclass(frozen=True)
class PoolingReport:
    """All figures of one run."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    sizes: list[Pooled]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        rows = [
            (
                size.page,
                str(size.vectors),
                str(size.pooled),
                f"{size.colpali_ms:.1f}",
                f"{size.pagevec_ms:.1f}",
                f"{size.colpali_ms / size.pagevec_ms:.1f}",
                f"{size.difference:.0e}",
            )
            for size in self.sizes
        ]
        return "\n".join([table(_COLUMNS, rows), "", facts(self.machine, self.setup)])


@click.command("pooling")
@click.option("--pages", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--factor", type=click.IntRange(2, 64), default=2, show_default=True)
@json_option
def command(pages: int, factor: int, file: Path | None) -> None:
    """Pool pages of the bundled model by both, one after the other, and compare the vectors."""
    give("pooling", measure(pages, factor), file)


def measure(pages: int, factor: int) -> PoolingReport:
    """Embed `pages` of each size; pool each of them by both, by turns."""
    settings = Settings(_env_file=None, model=str(bundled_checkpoint()))
    engine = LocalEmbedder.of(settings, lambda: load(settings))
    engine.wait_until_ready()
    by_size = {
        page: engine.embed(inputs.make_images(pages, SIZES[page])).result().vectors
        for page in _PAGES
    }
    engine.close()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the service, where a page is pooled by one of its threads
    sizes = [_compare(page, vectors, factor) for page, vectors in by_size.items()]
    torch.set_num_threads(threads)
    setup: dict[str, str | int] = {
        "model": name_of(bundled_checkpoint()),
        "pages": pages,
        "factor": factor,
    }
    return PoolingReport(machine(), setup, sizes)


def _compare(page: str, pages: list[MultiVector], factor: int) -> Pooled:
    ways: tuple[Callable[[MultiVector, int], MultiVector], ...] = (pool_as_colpali, pool)
    pooled = [[way(vectors, factor) for way in ways] for vectors in pages]  # warms up, too
    taken = [[seconds_of(partial(way, vectors, factor)) for way in ways] for vectors in pages]
    colpali_ms, pagevec_ms = (statistics.median(each) * 1000 for each in zip(*taken, strict=True))
    return Pooled(
        page,
        len(pages[0]),
        len(pooled[0][0]),
        colpali_ms,
        pagevec_ms,
        max(float(np.abs(theirs - ours).max()) for theirs, ours in pooled),
    )


def pool_as_colpali(vectors: MultiVector, factor: int) -> MultiVector:
    """Pool by colpali-engine."""
    import_torchvision()
    from colpali_engine.compression.token_pooling import HierarchicalTokenPooler

    pooler = HierarchicalTokenPooler()
    (pooled,) = pooler.pool_embeddings([torch.from_numpy(vectors)], pool_factor=factor)
    result: MultiVector = pooled.numpy()
    return result
