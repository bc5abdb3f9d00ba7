"""Token pooling beside colpali-engine's own."""

import statistics
from functools import partial

import click
import numpy as np
import torch

from benchmarks import data
from benchmarks.machine import time_once
from benchmarks.models import make_settings, name_model, run_engine
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from pagevec.engine.models.compat import import_torchvision
from pagevec.engine.models.registry import bundled_checkpoint
from pagevec.engine.pooling import pool
from pagevec.types import MultiVector

_PAGES = ("A4", "A5", "A6")
_COLUMNS = {
    "page": "page",
    "vectors": "vectors",
    "pooled": "pooled",
    "colpali-engine ms": "colpali_ms:.1f",
    "pagevec ms": "pagevec_ms:.1f",
    "times": "ratio:.1f",
    "largest difference": "difference:.0e",
}


def measure(pages: int, factor: int) -> Measurement:
    """Pool pages of the bundled model by both, one after the other, and compare the vectors.

    The milliseconds are those of one page on one thread.
    """
    checkpoint = bundled_checkpoint()
    with run_engine(make_settings(checkpoint, "auto")) as engine:
        by_size = {
            page: engine.embed_images(data.make_images(pages, data.SIZES[page])).result().vectors
            for page in _PAGES
        }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the service, where one thread pools a page
    rows = [_compare(page, vectors, factor) for page, vectors in by_size.items()]
    torch.set_num_threads(threads)
    setup = {"model": name_model(checkpoint), "pages": pages, "factor": factor}
    return Measurement("pooling", setup, {"sizes": Table(_COLUMNS, rows)})


def pool_as_colpali(vectors: MultiVector, factor: int) -> MultiVector:
    """Pool `vectors` (vectors, dim) with colpali-engine."""
    import_torchvision()
    from colpali_engine.compression.token_pooling import HierarchicalTokenPooler

    pooler = HierarchicalTokenPooler()
    (pooled,) = pooler.pool_embeddings([torch.from_numpy(vectors)], pool_factor=factor)
    result: MultiVector = pooled.numpy()
    return result


def _compare(page: str, pages: list[MultiVector], factor: int) -> Row:
    ways = (pool_as_colpali, pool)
    pooled = [[way(vectors, factor) for way in ways] for vectors in pages]  # warms them up as well
    taken = [[time_once(partial(way, vectors, factor)) for way in ways] for vectors in pages]
    colpali_ms, pagevec_ms = (statistics.median(each) * 1000 for each in zip(*taken, strict=True))
    return {
        "page": page,
        "vectors": len(pages[0]),
        "pooled": len(pooled[0][0]),
        "colpali_ms": colpali_ms,
        "pagevec_ms": pagevec_ms,
        "ratio": colpali_ms / pagevec_ms,
        "difference": max(float(np.abs(theirs - ours).max()) for theirs, ours in pooled),
    }


main = make_command(
    measure,
    number_option("--pages", 4),
    click.Option(["--factor"], type=click.IntRange(2, 64), default=2, show_default=True),
)

if __name__ == "__main__":
    main()
