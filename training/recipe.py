"""The stages of the training: crops, batch sizes, learning rates and last steps."""

from dataclasses import dataclass, field
from functools import partial

from training.losses import Weights


@dataclass(frozen=True)
class Stage:
    """Steps up to `until`; the learning rate changes linearly from `rate` to `last_rate`.

    Attributes:
        until: number of the step after the last one.
        width: of a crop, in pixels.
        height: of a crop, in pixels.
        crops: crops of a step, in each process.
        smallest: smallest size of print, in pixels.
        largest: largest size of print, in pixels.
        queries: queries for each crop.
        signs: share of steps in which the vectors of crops are rounded to their signs.
        rate: learning rate at the first step.
        last_rate: learning rate at the last step.
        weights: of the losses.
    """

    until: int
    width: int = 336
    height: int = 84
    crops: int = 20
    smallest: float = 15
    largest: float = 36
    queries: int = 1
    signs: float = 0
    rate: float = 2e-3
    last_rate: float = 2e-3
    weights: Weights = field(default_factory=Weights)


_LETTERS = Weights(spelling=0, words=0, crops=0)
_WORDS = Weights(words=0.5)
_CROPS = Weights(words=0.5, crops=0.6)
_strip = partial(
    Stage, width=896, height=336, crops=1, smallest=13, largest=40, queries=16, weights=_CROPS
)
_page = partial(_strip, height=1288)

STAGES = (
    Stage(until=60, crops=8, smallest=20, largest=26, rate=1e-4, last_rate=3e-3, weights=_LETTERS),
    Stage(until=600, crops=8, smallest=18, largest=28, rate=3e-3, last_rate=3e-3, weights=_LETTERS),
    Stage(until=640, crops=10, queries=2, rate=5e-4),
    Stage(until=1400, crops=10, queries=2),
    Stage(until=1800, height=168, crops=5, smallest=19, largest=44, queries=4, weights=_WORDS),
    Stage(
        until=2220, width=896, height=336, crops=1, smallest=18, largest=44, queries=16,
        last_rate=4e-4, weights=_CROPS,
    ),
    Stage(
        until=2300, width=896, height=1288, crops=1, smallest=16, largest=44, queries=16,
        rate=4e-4, last_rate=5e-5, weights=_CROPS,
    ),
    # Small print: 10 points of an A4 page are 15 pixels.
    Stage(
        until=2360, height=168, crops=5, smallest=16, largest=36, queries=4,
        rate=2e-4, last_rate=2e-3, weights=_WORDS,
    ),
    Stage(until=3980, height=168, crops=5, smallest=13, largest=32, queries=4, weights=_WORDS),
    Stage(
        until=4840, height=168, crops=5, smallest=13, largest=36, queries=4,
        rate=1.2e-3, last_rate=1.1e-3, weights=_WORDS,
    ),
    Stage(
        until=6000, height=168, crops=5, smallest=13, largest=36, queries=4,
        rate=1e-3, last_rate=6e-4, weights=_WORDS,
    ),
    _strip(until=7600, rate=6e-4, last_rate=1e-4),
    _page(until=7640, rate=1e-4, last_rate=1e-5),
    # Continued, with more negatives.
    _strip(until=7700, largest=34, rate=1e-4, last_rate=8e-4),
    _strip(until=11300, largest=34, rate=8e-4, last_rate=4e-4),
    _strip(until=13000, signs=0.2, rate=4e-4, last_rate=1e-4),
    _page(until=13060, rate=1e-4, last_rate=1e-5),
    # The smallest print once more.
    _strip(until=13100, largest=28, signs=0.2, rate=5e-5, last_rate=3e-4),
    _strip(until=13700, largest=28, signs=0.2, rate=3e-4, last_rate=3e-5),
    _page(until=13710, rate=3e-5, last_rate=1e-5),
)  # fmt: skip


def stage_at(step: int) -> tuple[Stage, float]:
    """Return the stage of a step, and its rate.

    Raises:
        StopIteration: all stages are done.
    """
    start = 0
    for stage in STAGES:
        if step < stage.until:
            gone = (step - start) / (stage.until - start)
            return stage, stage.rate + (stage.last_rate - stage.rate) * gone
        start = stage.until
    raise StopIteration
