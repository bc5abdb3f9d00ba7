"""`python -m benchmarks precision`: what reduced precision brings, and what it costs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import inputs
from benchmarks.clock import seconds_of
from benchmarks.machine import machine
from benchmarks.models import chosen_model, model_options, name_of
from benchmarks.output import facts, give, json_option, spread, table
from benchmarks.peers import Agreement, agreement_of
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import load
from pagevec.errors import ConfigurationError
from pagevec.images import EncodedImage, read_image
from pagevec.search.maxsim import maxsim
from pagevec.settings import Settings
from pagevec.types import MultiVector

_FULL = "full"
_FIRST = 5
_A_DAY = 86_400.0
_COLUMNS = (
    "precision",
    "pages/s",
    "rounds",
    "x full",
    "smallest cosine",
    "mean cosine",
    "equal signs",
    "same page first",
    "of the first five the same",
    "headline's page first",
)


@dataclass(frozen=True)
class Ranking:
    """What becomes of the order of pages, over all queries.

    Attributes:
        same_first: the share whose best page is the same.
        same_five: of the five best pages, the share that stays among them.
        found, found_reduced: the share whose best page is the one that they are the headline of.
    """

    same_first: float
    same_five: float
    found: float
    found_reduced: float


@dataclass(frozen=True)
class PrecisionReport:
    """All figures of one run: pages per second of each round, by precision."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    agreement: Agreement
    ranking: Ranking
    rates: dict[str, list[float]]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        full, reduced = self.rates
        near, order = self.agreement, self.ranking
        kept = (
            f"{near.cosine:.4f}",
            f"{near.mean_cosine:.4f}",
            f"{near.signs:.2%}",
            f"{order.same_first:.1%}",
            f"{order.same_five:.1%}",
            f"{order.found_reduced:.1%}",
        )
        rows = [
            (full, *self._speed(full), *[""] * (len(kept) - 1), f"{order.found:.1%}"),
            (reduced, *self._speed(reduced), *kept),
        ]
        return "\n".join([table(_COLUMNS, rows), "", facts(self.machine, self.setup)])

    def _speed(self, name: str) -> tuple[str, str, str]:
        rates = self.rates[name]
        rate = statistics.median(rates)
        ratio = rate / statistics.median(self.rates[_FULL])
        return f"{rate:.2f}", spread(rates), f"{ratio:.2f}"


@click.command("precision")
@model_options
@click.option("--precision", type=click.Choice(["int8", "fp8"]), default="int8", show_default=True)
@click.option("--pages", type=click.IntRange(min=_FIRST), default=32, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@json_option
def command(
    model: Path | None,
    full_size: Path | None,
    device: str,
    precision: str,
    pages: int,
    rounds: int,
    file: Path | None,
) -> None:
    """Compare reduced precision with full: same weights, A4 pages, by turns; queries too.

    A query for each page is its headline: its words stand on every page, in small print.
    """
    try:
        checkpoint = chosen_model(model, full_size)
        sent = inputs.make_pages(pages), inputs.headlines(pages)
        report = measure(checkpoint, device, precision, *sent, rounds)
    except ConfigurationError as error:
        raise click.ClickException(error.message) from error
    give("precision", report, file)


def measure(
    checkpoint: Path,
    device: str,
    precision: str,
    pages: list[bytes],
    queries: list[str],
    rounds: int,
) -> PrecisionReport:
    """Embed `pages` in both precisions, in `rounds` by turns, and `queries`, one for each page.

    Raises:
        ConfigurationError: the device has no products of this precision.
    """
    images = [read_image(file) for file in pages]
    engines = {name: _engine(checkpoint, device, name) for name in (_FULL, precision)}
    embedded, rates = _by_turns(engines, images, rounds)
    asked = {name: engine.embed(queries).result().vectors for name, engine in engines.items()}
    info = engines[precision].info
    for engine in engines.values():
        engine.close()
    setup: dict[str, str | int] = {
        "model": name_of(checkpoint),
        "device": info.device,
        "dtype": info.dtype,
        "pages": len(pages),
        "queries": len(queries),
    }
    exact, reduced = (embedded[name] + asked[name] for name in engines)
    orders = [order_of(asked[name], embedded[name]) for name in engines]
    return PrecisionReport(
        machine(), setup, agreement_of(exact, reduced), ranking_of(*orders), rates
    )


def order_of(queries: Sequence[MultiVector], pages: Sequence[MultiVector]) -> NDArray[np.intp]:
    """Return (queries, pages): for each query the pages' positions, the best first."""
    scores = np.stack([maxsim(query, pages) for query in queries])
    return np.argsort(-scores, axis=1, kind="stable")


def ranking_of(exact: NDArray[np.intp], reduced: NDArray[np.intp]) -> Ranking:
    """Compare two orders (queries, pages), where query i belongs to page i."""
    own = np.arange(len(exact))
    both = zip(exact[:, :_FIRST], reduced[:, :_FIRST], strict=True)
    return Ranking(
        same_first=float((exact[:, 0] == reduced[:, 0]).mean()),
        same_five=float(np.mean([np.isin(one, other).mean() for one, other in both])),
        found=float((exact[:, 0] == own).mean()),
        found_reduced=float((reduced[:, 0] == own).mean()),
    )


def _engine(checkpoint: Path, device: str, precision: str) -> LocalEmbedder:
    settings = Settings(
        _env_file=None,
        model=str(checkpoint),
        device=device,
        precision=precision,
        request_seconds=_A_DAY,  # nothing is refused because it is slow
    )
    engine = LocalEmbedder.of(settings, lambda: load(settings))
    engine.wait_until_ready()
    return engine


def _by_turns(
    engines: dict[str, LocalEmbedder], images: list[EncodedImage], rounds: int
) -> tuple[dict[str, list[MultiVector]], dict[str, list[float]]]:
    """Return each engine's vectors of `images`, and how many it did in a second of each round."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        embedded = {}
        for name, engine in engines.items():
            future = engine.embed(images)
            rates[name].append(len(images) / seconds_of(future.result))
            embedded[name] = future.result().vectors
    return embedded, rates
