"""The first passes through a loaded model: they show that it answers, and how fast."""

import logging
import time
from io import BytesIO

from PIL import Image

from pagevec.engine.backends.padded import Runner
from pagevec.engine.backends.preprocess import Prepared
from pagevec.engine.memory import free_memory, is_out_of_memory
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.scheduler import batch_tokens, halve
from pagevec.engine.speed import Speed
from pagevec.images import read_image

log = logging.getLogger(__name__)

_A4_AT_150_DPI = (1240, 1754)
_QUERY = "Which route carried the most passengers in the winter of 2024?"
# The first pass allocates; a second one is the measure, unless the first took longer than this.
_SLOW_SECONDS = 2.0


def warm_up(model: LoadedModel, runner: Runner, speed: Speed, budget: int) -> int:
    """Run full batches of pages and of queries, learn their speed, return the budget that fits.

    Raises:
        Exception: whatever one page or one query alone raises: the model does not answer.
    """
    for is_query in (False, True):
        prepared = _query(model) if is_query else _page(model)
        batch = [prepared] * max(1, budget // prepared.tokens)
        fitting, seconds = _run_what_fits(model, runner, batch)
        if seconds < _SLOW_SECONDS:
            fitting, seconds = _run_what_fits(model, runner, fitting)
        lengths = [one.tokens for one in fitting]
        if len(fitting) < len(batch):
            budget = batch_tokens(lengths, not model.packs)
        speed.learn_forward(is_query, lengths, budget, seconds)
        kind = "queries" if is_query else "pages"
        log.info("warm-up: %d %s, %d tokens, %.3f s", len(fitting), kind, sum(lengths), seconds)
    return budget


def _run_what_fits(
    model: LoadedModel, runner: Runner, batch: list[Prepared]
) -> tuple[list[Prepared], float]:
    """Run `batch`, or the largest half of a half of it that fits; return it and its seconds."""
    while True:
        started = time.perf_counter()
        try:
            runner.forward(batch)
            return batch, time.perf_counter() - started
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        free_memory(model.device)
        batch, _ = halve(batch)


def _page(model: LoadedModel) -> Prepared:
    blank = BytesIO()
    Image.new("RGB", _A4_AT_150_DPI, "white").save(blank, "PNG")
    return model.preprocessor.page(read_image(blank.getvalue()))


def _query(model: LoadedModel) -> Prepared:
    return model.preprocessor.texts([_QUERY])[0]
