"""Reduced precision beside full: what it brings, and what it costs."""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.machine import time_once
from benchmarks.models import DEVICE, MODEL, compare_vectors, make_settings, name_model, run_engine
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from pagevec.engine.embedder import LocalEmbedder
from pagevec.images import EncodedImage, read_image
from pagevec.search.maxsim import maxsim
from pagevec.types import MultiVector

_FULL = "full"
_FIRST = 5
_COLUMNS = {
    "precision": "precision",
    "pages/s": "pages_per_second:.2f",
    "rounds": "rounds:.2f",
    "x full": "ratio:.2f",
    "smallest cosine": "cosine:.4f",
    "mean cosine": "mean_cosine:.4f",
    "equal signs": "signs:.2%",
    "same page first": "same_first:.1%",
    "of the first five the same": "same_five:.1%",
    "headline's page first": "found:.1%",
}


@dataclass(frozen=True)
class Ranking:
    """How reduced precision changes the order of pages, over all queries.

    Attributes:
        same_first: share of queries whose best page stays the same.
        same_five: share of the five best pages that stay among the five best.
        found: share of queries whose own page comes first in full precision.
        found_reduced: share of queries whose own page comes first in reduced precision.
    """

    same_first: float
    same_five: float
    found: float
    found_reduced: float


def measure(checkpoint: Path, device: str, precision: str, pages: int, rounds: int) -> Measurement:
    """Compare reduced precision with full: same weights, A4 pages, in turn; queries too.

    The query for each page is its headline, whose words stand on every page in small print.
    """
    files, queries = data.make_pages(pages), data.make_headlines(pages)
    return compare(checkpoint, device, precision, files, queries, rounds)


def compare(
    checkpoint: Path,
    device: str,
    precision: str,
    pages: list[bytes],
    queries: list[str],
    rounds: int,
) -> Measurement:
    """Embed `pages` in both precisions, in turn, and `queries`, of which each has its page.

    Raises:
        ConfigurationError: the device does not support this precision.
    """
    images = [read_image(file) for file in pages]
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(run_engine(make_settings(checkpoint, device, precision=name)))
            for name in (_FULL, precision)
        }
        rates, embedded = _embed_in_turn(engines, images, rounds)
        asked = {
            name: engine.embed_texts(queries).result().vectors for name, engine in engines.items()
        }
        info = engines[precision].info()
    setup = {
        "model": name_model(checkpoint),
        "device": info.device,
        "dtype": info.dtype,
        "precision": info.precision,
        "pages": len(pages),
        "queries": len(queries),
    }
    near = compare_vectors(*(embedded[name] + asked[name] for name in engines))
    ranking = compare_orders(*(order_pages(asked[name], embedded[name]) for name in engines))
    rows: list[Row] = [
        {**_summarize(_FULL, rates), "found": ranking.found},
        {
            **_summarize(precision, rates),
            **asdict(near),
            "same_first": ranking.same_first,
            "same_five": ranking.same_five,
            "found": ranking.found_reduced,
        },
    ]
    return Measurement("precision", setup, {"rows": Table(_COLUMNS, rows)})


def order_pages(queries: Sequence[MultiVector], pages: Sequence[MultiVector]) -> NDArray[np.intp]:
    """Return (queries, pages): for each query the pages' positions, the best first."""
    scores = np.stack([maxsim(query, pages) for query in queries])
    return np.argsort(-scores, axis=1, kind="stable")


def compare_orders(exact: NDArray[np.intp], reduced: NDArray[np.intp]) -> Ranking:
    """Compare two orders (queries, pages), where query i belongs to page i."""
    own = np.arange(len(exact))
    pairs = zip(exact[:, :_FIRST], reduced[:, :_FIRST], strict=True)
    return Ranking(
        same_first=float((exact[:, 0] == reduced[:, 0]).mean()),
        same_five=float(np.mean([np.isin(one, other).mean() for one, other in pairs])),
        found=float((exact[:, 0] == own).mean()),
        found_reduced=float((reduced[:, 0] == own).mean()),
    )


def _summarize(name: str, rates: dict[str, list[float]]) -> Row:
    rate = statistics.median(rates[name])
    return {
        "precision": name,
        "pages_per_second": rate,
        "rounds": rates[name],
        "ratio": rate / statistics.median(rates[_FULL]),
    }


def _embed_in_turn(
    engines: dict[str, LocalEmbedder], images: list[EncodedImage], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[MultiVector]]]:
    """Return each engine's pages per second in each round, and its vectors of `images`."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    embedded = {}
    for _ in range(rounds):
        for name, engine in engines.items():
            future = engine.embed_images(images)
            rates[name].append(len(images) / time_once(future.result))
            embedded[name] = future.result().vectors
    return rates, embedded


main = make_command(
    measure,
    MODEL,
    DEVICE,
    click.Option(
        ["--precision"],
        type=click.Choice(["int8", "fp8", "fastest"]),
        default="int8",
        show_default=True,
    ),
    number_option("--pages", 32, least=_FIRST),
    number_option("--rounds", 3),
)

if __name__ == "__main__":
    main()
