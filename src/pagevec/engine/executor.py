"""Forward passes over batches of items: timed, measured, halved when they fail."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import torch

from pagevec.engine.api import Memory
from pagevec.engine.backends.padded import runner_of
from pagevec.engine.memory import free_memory, is_out_of_memory, memory_of
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.requests import Item
from pagevec.engine.scheduler import Scheduler, batch_tokens, halve
from pagevec.engine.speed import Speed
from pagevec.engine.warmup import warm_up
from pagevec.errors import OutOfMemory
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

# The memory is logged again when it has changed by this factor.
_MUCH = 1.25
_MIB = 1024 * 1024

Finish = Callable[[Item, MultiVector, int], None]


class Passes:
    """Runs the model on batches, from one thread or several.

    Attributes:
        busy_seconds: what all passes took so far.
    """

    def __init__(
        self, model: LoadedModel, scheduler: Scheduler[Item], speed: Speed, finish: Finish
    ) -> None:
        """Take each item's vectors, and the size of its batch, to `finish`."""
        self._measuring = threading.Lock()
        self.busy_seconds = 0.0
        self._model = model
        self._runner = runner_of(model)
        self._scheduler = scheduler
        self._speed = speed
        self._finish = finish
        self._logged = Memory(0, 0, 0)

    def warm_up(self, batch_tokens: int) -> None:
        """Run the first passes; learn the speed, and how much of `batch_tokens` fits."""
        self._speed.attention_knee = self._model.attention_knee
        self._scheduler.padded = self._speed.padded = not self._model.packs
        self._scheduler.budget = warm_up(self._model, self._runner, self._speed, batch_tokens)
        self._log_memory()

    def run(self, batch: list[Item], at_once: int = 1) -> None:
        """Embed `batch`, one of `at_once` that share the device: each item is finished, or failed.

        Raises:
            torch.AcceleratorError: the device itself failed, and will fail whatever comes next.
        """
        started = time.perf_counter()
        try:
            vectors = self._runner.forward([item.prepared for item in batch])
        except torch.AcceleratorError:
            raise
        except Exception as error:
            self._run_halves(batch, at_once, error)
            return
        self._measure(batch, at_once, time.perf_counter() - started)
        for item, one in zip(batch, vectors, strict=True):
            item.job.waited(started - item.since)
            self._finish(item, one, len(batch))

    def _run_halves(self, batch: list[Item], at_once: int, error: Exception) -> None:
        """Go on with smaller batches after a failure, down to the one input that is to blame."""
        out_of_memory = is_out_of_memory(error)
        if out_of_memory:
            error.__traceback__ = None  # it holds the tensors of the failed pass
            free_memory(self._model.device)
        if len(batch) == 1:
            _blame(batch[0], error, out_of_memory)
            return
        first, second = halve(batch)
        if out_of_memory:
            log.warning("out of memory with %d inputs: trying %d", len(batch), len(first))
            self._scheduler.shrink_to(batch_tokens(_lengths(first), self._scheduler.padded))
        self.run(first, at_once)
        self.run(second, at_once)

    def _measure(self, batch: list[Item], at_once: int, seconds: float) -> None:
        budget = self._scheduler.budget
        with self._measuring:
            self.busy_seconds += seconds / at_once
            self._speed.learn_forward(batch[0].is_query, _lengths(batch), budget, seconds / at_once)
        for job in {item.job for item in batch}:
            job.add_forward(seconds)
        self._log_memory()

    def _log_memory(self) -> None:
        now, before = memory_of(self._model.device), self._logged.allocated
        if not before / _MUCH < now.allocated < before * _MUCH:
            self._logged = now
            figures = (now.allocated // _MIB, now.reserved // _MIB, now.peak // _MIB)
            log.info("memory: %d MiB allocated, %d reserved, %d at the peak", *figures)


def _blame(item: Item, error: Exception, out_of_memory: bool) -> None:
    if out_of_memory:
        log.error("out of memory with one input of %d tokens", item.tokens)
        error = OutOfMemory(
            f"this input alone ({item.tokens} tokens) does not fit into the device's memory"
        )
    else:
        log.error("an input failed", exc_info=error)
    item.job.fail(error, item.index)


def _lengths(batch: Sequence[Item]) -> list[int]:
    return [item.tokens for item in batch]
