"""`python -m benchmarks peers`: the engine beside colpali-engine, same weights, same pages."""

import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import inputs
from benchmarks.clock import seconds_of
from benchmarks.colpali import FLASH, PLAIN, SDPA, ColpaliEngine
from benchmarks.machine import machine
from benchmarks.models import chosen_model, model_options, name_of
from benchmarks.output import facts, give, json_option, spread, table
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import load
from pagevec.images import read_image
from pagevec.settings import Settings
from pagevec.types import MultiVector

Embed = Callable[[list[bytes]], list[Any]]
_OURS = "pagevec"
_COLUMNS = ["engine", "pages/s", "rounds", "x plain loop", "x colpali-engine at its best"]


@dataclass(frozen=True)
class Agreement:
    """How near two engines' vectors are, over all pages.

    Attributes:
        difference: the largest of any number.
        cosine, mean_cosine: the smallest of any vector, the mean of all.
        signs: the share of components with the same sign.
    """

    difference: float
    cosine: float
    mean_cosine: float
    signs: float


@dataclass(frozen=True)
class PeersReport:
    """All figures of one run: pages per second of each round, by engine."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    agreement: Agreement
    rates: dict[str, list[float]]

    def markdown(self) -> str:
        """Return the table, and what it was measured on."""
        medians = {name: statistics.median(rates) for name, rates in self.rates.items()}
        plain = medians[PLAIN.name]
        best = max(rate for name, rate in medians.items() if name not in (PLAIN.name, _OURS))
        rows = [
            (
                name,
                f"{rate:.2f}",
                spread(self.rates[name]),
                f"{rate / plain:.2f}",
                f"{rate / best:.2f}",
            )
            for name, rate in medians.items()
        ]
        told = self.agreement
        close = (
            f"largest difference {told.difference:.0e}, smallest cosine {told.cosine:.6f}, "
            f"equal signs {told.signs:.2%}"
        )
        return "\n".join([table(_COLUMNS, rows), "", facts(self.machine, self.setup), close])


@click.command("peers")
@model_options
@click.option("--pages", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@json_option
def command(
    model: Path | None,
    full_size: Path | None,
    device: str,
    pages: int,
    rounds: int,
    file: Path | None,
) -> None:
    """Compare the engine with colpali-engine: A4 pages, files in, arrays out, by turns."""
    checkpoint = chosen_model(model, full_size)
    give("peers", compare(checkpoint, device, inputs.make_pages(pages), rounds), file)


def compare(checkpoint: Path, device: str, pages: list[bytes], rounds: int) -> PeersReport:
    """Measure all ways on `pages`, `rounds` times by turns, after one round that warms up."""
    settings = Settings(_env_file=None, model=str(checkpoint), device=device)
    ours = LocalEmbedder.of(settings, lambda: load(settings))
    ours.wait_until_ready()
    info = ours.info
    theirs = ColpaliEngine(checkpoint, torch.device(info.device), getattr(torch, info.dtype))
    ways = [PLAIN, *SDPA, *(FLASH if _has_flash(info.device) else ())]
    engines: dict[str, Embed] = {
        way.name: lambda files, way=way: theirs.embed(files, way)  # type: ignore[misc]
        for way in ways
    }
    engines[_OURS] = lambda files: ours.embed([read_image(file) for file in files]).result().vectors
    answers = {name: embed(pages) for name, embed in engines.items()}
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, embed in engines.items():
            rates[name].append(len(pages) / seconds_of(partial(embed, pages)))
    ours.close()
    setup: dict[str, str | int] = {
        "model": name_of(checkpoint),
        "device": info.device,
        "dtype": info.dtype,
        "pages": len(pages),
    }
    agreement = agreement_of(answers[_OURS], answers[SDPA[0].name])
    return PeersReport(machine(), setup, agreement, rates)


def agreement_of(ours: list[MultiVector], theirs: list[MultiVector]) -> Agreement:
    """Compare vectors row by row.

    Raises:
        ValueError: shapes differ.
    """
    one, other = np.concatenate(ours), np.concatenate(theirs)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / lengths
    return Agreement(
        difference=float(np.abs(one - other).max()),
        cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        signs=float((np.sign(one) == np.sign(other)).mean()),
    )


def _has_flash(device: str) -> bool:
    return device.startswith("cuda") and importlib.util.find_spec("flash_attn") is not None
