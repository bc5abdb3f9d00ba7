"""A backend at work: inputs are prepared, a queue orders them, threads run batches and pool."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from pagevec.engine.admission import Admission, Budgets
from pagevec.engine.api import Embedded, Health
from pagevec.engine.backends.base import Backend, read_hints
from pagevec.engine.executor import BatchExecutor, warm_up
from pagevec.engine.pooling import pool, pooling_bytes
from pagevec.engine.preparation import Preparation
from pagevec.engine.requests import Item, Request
from pagevec.engine.scheduler import Scheduler
from pagevec.engine.workers import Task, Workers, WorkingBytes
from pagevec.errors import EngineFailed, InvalidRequest
from pagevec.images import EncodedImage
from pagevec.machine import usable_cores
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

# Pages prepared ahead of the model: enough to keep it busy, few enough to bound the memory.
PAGES_AHEAD = 32
# How often it is looked whether the engine failed while a thread is still in its batch.
_LOOK_SECONDS = 1.0


class Engine:
    """Embeds requests with a backend that is loaded and warm.

    Attributes:
        info: what users are told of the model.
        failure: the error that stopped the engine, or None.
    """

    def __init__(
        self,
        backend: Backend[Any],
        *,
        batch_tokens: int | None,
        model_threads: int | None,
        preprocess_threads: int | None,
        budgets: Budgets,
        failed: threading.Event,
    ) -> None:
        """Warm up `backend` in this thread.

        Args:
            backend: prepares inputs and runs the model.
            batch_tokens: see `LocalEmbedder`.
            model_threads: batches that run at the same time.
            preprocess_threads: threads that prepare pages.
            budgets: what is taken on at most.
            failed: set when the engine has failed, although threads may still be in a batch.

        Raises:
            ConfigurationError: what the backend returns are not multi-vectors.
            Exception: whatever else the backend raises.
        """
        hints = read_hints(backend)
        warm = warm_up(backend, hints, batch_tokens or hints.batch_tokens)
        threads = preprocess_threads or usable_cores()
        tells_tokens = callable(getattr(backend, "tokenize", None))
        self.info = replace(backend.info(), tells_tokens=tells_tokens)
        self.failure: BaseException | None = None
        self._failed = failed
        self._device = hints.device
        self._threads = model_threads or hints.threads
        self._start_seconds = {**hints.load_seconds, "warm_up": warm.seconds}
        self._throughput = warm.throughput
        self._scheduler = Scheduler(warm.batch_tokens, padded=hints.padded)
        self._scheduler.pass_work = warm.throughput.pass_work
        self._executor = BatchExecutor(
            backend, hints.device, self._scheduler, warm.throughput, self._finish
        )
        self._admission = Admission(budgets)
        self._changed = threading.Condition()
        self._draining = False
        self._running = 0
        self._in_pages = 0  # threads that run a batch of pages
        working = WorkingBytes(budgets.working_bytes)
        self._preparation = Preparation(
            backend,
            warm.throughput,
            self._admission,
            working,
            threads,
            batch_tokens=lambda: self._scheduler.budget,
            has_room=self._has_room,
            enqueue=self._enqueue,
            stop=self._stop,
            begin=self._begin_thread,
        )
        # Vectors of queries never wait for those of pages.
        self._pooling = {
            is_query: Workers(
                "pagevec-pool",
                1 if is_query else threads,
                working,
                begin=self._begin_thread,
                stop=self._stop,
                nice=not is_query,
            )
            for is_query in (True, False)
        }
        log.info("ready: %s", ", ".join(f"{k} {s:.2f} s" for k, s in self._start_seconds.items()))

    def submit_texts(self, request: Request, texts: Sequence[str], tokens: bool) -> bool:
        """Begin to embed texts; return False if the engine accepts no more requests."""
        if tokens and not self.info.tells_tokens:
            request.fail(InvalidRequest("tokens: this model does not tell the tokens of texts"))
        elif tokens and request.pool_factor > 1:
            request.fail(InvalidRequest("tokens: not available with pool_factor above 1"))
        return self._submit(request, self._preparation.begin_texts, texts, tokens)

    def submit_pages(self, request: Request, pages: Sequence[EncodedImage]) -> bool:
        """Begin to embed page images; return False if the engine accepts no more requests."""
        return self._submit(request, self._preparation.begin_pages, pages)

    def health(self) -> Health:
        """Return a snapshot of a ready engine."""
        with self._changed:
            tokens, budget = self._scheduler.tokens, self._scheduler.budget
        return Health(
            state="ready",
            queued_inputs=self._admission.inputs,
            queued_tokens=tokens,
            batch_tokens=budget,
            memory=self._device.measure_memory(),
            busy_seconds=self._executor.busy_seconds,
            start_seconds=self._start_seconds,
        )

    def run(self) -> None:
        """Run batches, in this thread and others, until the engine fails or has drained."""
        takers = [self._next_batch] * (self._threads - 1)
        if self._threads > 1:
            takers.append(self._next_queries)
        others = [
            threading.Thread(
                target=self._run_batches, args=(take,), name="pagevec-model", daemon=True
            )
            for take in takers
        ]
        try:
            for other in others:
                other.start()
        except BaseException as error:
            self._stop(error)
        self._run_batches(self._next_batch)
        while self.failure is None and any(other.is_alive() for other in others):
            for other in others:
                other.join(_LOOK_SECONDS)

    def drain(self) -> None:
        """Accept no more requests; `run` returns when those that were accepted are done."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads that prepare inputs and pool vectors, after `run` has returned."""
        self._preparation.close()
        for workers in self._pooling.values():
            workers.close()

    def _submit(self, request: Request, begin: Callable[..., None], *inputs: object) -> bool:
        with self._changed:
            if self._draining or self.failure is not None:
                return False
            self._admission.register(request)
        request.future.add_done_callback(partial(self._forget, request))
        try:
            if not request.abandoned:
                begin(request, *inputs)
        except BaseException as error:
            request.fail(error)
        return True

    def _forget(self, request: Request, future: Future[Embedded]) -> None:
        """Let go of a request that is done; of one that failed, also what waits in line."""
        if future.cancelled() or future.exception() is not None:
            self._preparation.forget(request)
            self._pooling[request.is_query].forget(request)
        with self._changed:
            self._changed.notify_all()

    # In the threads that prepare inputs

    def _has_room(self, caller: str) -> bool:
        """Whether one more page of `caller` may wait; those of others never keep out its first."""
        with self._changed:
            return self._scheduler.pages < PAGES_AHEAD or not self._scheduler.pages_of(caller)

    def _enqueue(self, items: list[Item]) -> None:
        with self._changed:
            for item in items:
                self._scheduler.add(item)
            self._changed.notify_all()

    def _begin_thread(self) -> None:
        # One core for each thread: they share the work by inputs.
        self._device.share_cores(usable_cores())

    # In the threads that run the model

    def _run_batches(self, take: Callable[[], list[Item]]) -> None:
        try:
            while batch := self._wait_for(take):
                at_once = self._begin_batch()
                self._device.share_cores(at_once)
                self._executor.run(batch, at_once)
                self._end_batch(batch)
        except BaseException as error:
            self._stop(error)

    def _next_batch(self) -> list[Item]:
        return self._scheduler.next_batch(self._threads)

    def _next_queries(self) -> list[Item]:
        """Return queries that would wait for a page, while all other threads run pages.

        Where several threads share the cores, a query's milliseconds are better spent beside them.
        """
        return self._scheduler.next_queries() if self._in_pages == self._threads else []

    def _wait_for(self, take: Callable[[], list[Item]]) -> list[Item]:
        """Wait for the next batch; empty when the engine failed, or is drained."""
        with self._changed:
            while self.failure is None:
                if batch := take():
                    self._in_pages += not batch[0].is_query
                    break
                if self._draining and not self._admission.unfinished:
                    break
                self._changed.wait()
            else:
                batch = []
            self._changed.notify_all()
        self._preparation.wake()
        return batch

    def _begin_batch(self) -> int:
        """Count a batch that begins; return how many batches share the cores."""
        with self._changed:
            self._running += 1
            return self._threads if self._running > 1 or len(self._scheduler) else 1

    def _end_batch(self, batch: list[Item]) -> None:
        with self._changed:
            self._running -= 1
            self._in_pages -= not batch[0].is_query
            if self._scheduler.end(batch):
                self._changed.notify_all()

    def _stop(self, error: BaseException) -> None:
        """Fail all requests, those to come too: the device, or a thread that all need, is lost."""
        log.error("the engine stopped", exc_info=error)
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()
        for request in self._admission.unfinished:
            request.fail(EngineFailed("the model failed for good; see the log of the service"))
        self._failed.set()

    # After a batch

    def _finish(self, item: Item, vectors: MultiVector, batch_size: int) -> None:
        request, count = item.request, len(vectors)
        if request.pool_factor == 1:
            _deliver(item, vectors, batch_size)
            return
        run = partial(self._pool, item, vectors, batch_size)
        seconds = self._throughput.pooling_seconds(count)
        task = Task(request, run, seconds, pooling_bytes(*vectors.shape), item.index)
        self._pooling[request.is_query].submit(task)

    def _pool(self, item: Item, vectors: MultiVector, batch_size: int) -> None:
        begun = time.perf_counter()
        pooled = pool(vectors, item.request.pool_factor)
        self._throughput.learn_pooling(len(vectors), time.perf_counter() - begun)
        _deliver(item, pooled, batch_size)


def _deliver(item: Item, vectors: MultiVector, batch_size: int) -> None:
    item.request.deliver(item.index, vectors, token_count=item.tokens, batch_size=batch_size)
