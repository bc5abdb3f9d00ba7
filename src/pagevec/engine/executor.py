"""Runs batches: measures them, and halves those that fail."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from pagevec.engine.api import Memory
from pagevec.engine.backends.base import Backend, BatchHints, Device, Prepared
from pagevec.engine.requests import Item
from pagevec.engine.scheduler import Scheduler, batch_tokens, halve
from pagevec.engine.throughput import Throughput
from pagevec.errors import ConfigurationError, InternalError, OutOfMemory
from pagevec.images import read_image
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

# The memory is logged again when it has changed by this factor.
_LOGGED_CHANGE = 1.25
_MIB = 1024 * 1024
_A4_AT_150_DPI = (1240, 1754)
_QUERY = "Which route carried the most passengers in the winter of 2024?"
# The first batch allocates; a second one is measured, unless the first took longer than this.
_SLOW_SECONDS = 2.0
_UNIT_TOLERANCE = 1e-2

Finish = Callable[[Item, MultiVector, int], None]


class BatchExecutor:
    """Runs batches on a backend, from one thread or several.

    Attributes:
        busy_seconds: duration of all batches so far.
    """

    def __init__(
        self,
        backend: Backend[Any],
        device: Device,
        scheduler: Scheduler,
        throughput: Throughput,
        finish: Finish,
    ) -> None:
        """Run nothing yet.

        Args:
            backend: runs the model.
            device: what the backend computes on.
            scheduler: is told when a batch was too large.
            throughput: learns from each batch.
            finish: called with each item, its multi-vector, and the size of its batch.
        """
        self.busy_seconds = 0.0
        self._backend = backend
        self._device = device
        self._scheduler = scheduler
        self._throughput = throughput
        self._finish = finish
        self._measuring = threading.Lock()
        self._logged = Memory(0, 0, 0)
        self._log_memory()

    def run(self, batch: list[Item], at_once: int = 1) -> None:
        """Embed `batch`: each item is finished, or its request fails.

        Args:
            batch: texts, or pages.
            at_once: batches that share the device, this one included.

        Raises:
            Exception: the device itself failed, and will fail whatever comes next.
        """
        started = time.perf_counter()
        try:
            vectors = _forward(self._backend, [item.prepared for item in batch])
        except Exception as error:
            if self._device.is_fatal(error):
                raise
            self._run_halves(batch, at_once, error)
            return
        self._measure(batch, at_once, time.perf_counter() - started)
        for item, one in zip(batch, vectors, strict=True):
            item.request.note_wait(started - item.since)
            self._finish(item, one, len(batch))

    def _run_halves(self, batch: list[Item], at_once: int, error: Exception) -> None:
        """Go on with smaller batches after a failure, down to the one input that is to blame."""
        out_of_memory = self._device.is_out_of_memory(error)
        if out_of_memory:
            error.__traceback__ = None  # it holds the tensors of the failed batch
            self._device.free_memory()
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
        budget, own = self._scheduler.budget, seconds / at_once
        with self._measuring:
            self.busy_seconds += own
            self._throughput.learn_forward(batch[0].is_query, _lengths(batch), budget, own)
            self._scheduler.pass_work = self._throughput.pass_work
        for request in {item.request for item in batch}:
            request.add_forward(seconds)
        self._log_memory()

    def _log_memory(self) -> None:
        now, before = self._device.measure_memory(), self._logged.allocated
        if not before / _LOGGED_CHANGE < now.allocated < before * _LOGGED_CHANGE:
            self._logged = now
            figures = (now.allocated // _MIB, now.reserved // _MIB, now.peak // _MIB)
            log.info("memory: %d MiB allocated, %d reserved, %d at the peak", *figures)


@dataclass(frozen=True)
class WarmUp:
    """What the first batches showed.

    Attributes:
        batch_tokens: tokens of the largest batch that fits, within the budget.
        throughput: estimates from full batches of queries and of pages.
        seconds: duration of the warm-up.
    """

    batch_tokens: int
    throughput: Throughput
    seconds: float


def warm_up(backend: Backend[Any], hints: BatchHints, budget: int) -> WarmUp:
    """Run full batches of pages and of queries.

    Args:
        backend: runs the model.
        hints: of the backend.
        budget: tokens of a batch.

    Raises:
        ConfigurationError: what the backend returns are not multi-vectors.
        Exception: whatever a single page or query raises, because the model does not work.
    """
    begun = time.perf_counter()
    throughput = Throughput(hints.quadratic_crossover, hints.padded, backend.info().dim)
    for is_query in (False, True):
        if is_query:
            [prepared] = backend.prepare_texts([_QUERY])
        else:
            prepared = _prepare_page(backend, throughput)
        _require_multi_vectors(backend, prepared)
        batch = [prepared] * max(1, budget // max(1, prepared.tokens))
        fitting, seconds = _run_what_fits(backend, hints.device, batch)
        if seconds < _SLOW_SECONDS:
            fitting, seconds = _run_what_fits(backend, hints.device, fitting)
        lengths = [one.tokens for one in fitting]
        if len(fitting) < len(batch):
            budget = batch_tokens(lengths, hints.padded)
        throughput.learn_forward(is_query, lengths, budget, seconds)
        kind = "queries" if is_query else "pages"
        log.info("warm-up: %d %s, %d tokens, %.3f s", len(fitting), kind, sum(lengths), seconds)
    return WarmUp(budget, throughput, time.perf_counter() - begun)


def _run_what_fits(
    backend: Backend[Any], device: Device, batch: list[Prepared]
) -> tuple[list[Prepared], float]:
    """Run `batch`, or its half, or a half of that, until it fits; return it and its seconds."""
    while True:
        started = time.perf_counter()
        try:
            _forward(backend, batch)
            return batch, time.perf_counter() - started
        except Exception as error:
            if len(batch) == 1 or not device.is_out_of_memory(error):
                raise
        device.free_memory()
        batch, _ = halve(batch)


def _forward(backend: Backend[Any], batch: list[Prepared]) -> list[MultiVector]:
    vectors = backend.forward(batch)
    if len(vectors) != len(batch):
        raise InternalError(f"the backend returned {len(vectors)} results for {len(batch)} inputs")
    return vectors


def _prepare_page(backend: Backend[Any], throughput: Throughput) -> Prepared:
    blank = BytesIO()
    Image.new("RGB", _A4_AT_150_DPI, "white").save(blank, "PNG")
    image = read_image(blank.getvalue())
    started = time.perf_counter()
    page: Prepared = backend.prepare_page(image)
    throughput.learn_prepare(image.decode_pixels, time.perf_counter() - started)
    return page


def _require_multi_vectors(backend: Backend[Any], prepared: Prepared) -> None:
    [vectors], dim = _forward(backend, [prepared]), backend.info().dim
    is_array = isinstance(vectors, np.ndarray) and vectors.dtype == np.float32
    if not is_array or vectors.ndim != 2 or vectors.shape[1] != dim:
        form = f"{vectors.dtype} {vectors.shape}" if hasattr(vectors, "dtype") else type(vectors)
        raise ConfigurationError(
            f"{type(backend).__name__}.forward returned {form} for one input; "
            f"expected a numpy array, float32 (vectors, {dim})"
        )
    if np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0) > _UNIT_TOLERANCE:
        raise ConfigurationError(
            f"{type(backend).__name__}.forward returned rows that are not of unit length"
        )


def _blame(item: Item, error: Exception, out_of_memory: bool) -> None:
    if out_of_memory:
        log.error("out of memory with one input of %d tokens", item.tokens)
        error = OutOfMemory(
            f"this input alone ({item.tokens} tokens) does not fit into the device's memory"
        )
    else:
        log.error("an input failed", exc_info=error)
    item.request.fail(error, item.index)


def _lengths(batch: Sequence[Item]) -> list[int]:
    return [item.tokens for item in batch]
