"""A backend at work: threads prepare inputs, a queue orders them, threads run batches."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pagevec.engine.admission import Admission
from pagevec.engine.api import Health
from pagevec.engine.backends.base import Backend, read_hints
from pagevec.engine.executor import BatchExecutor, warm_up
from pagevec.engine.pooling import pool
from pagevec.engine.requests import Item, Request
from pagevec.engine.scheduler import Scheduler
from pagevec.errors import InternalError, InvalidRequest, NotReady
from pagevec.images import EncodedImage
from pagevec.machine import usable_cores
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

# Pages prepared ahead of the model: enough to keep it busy, few enough to bound the memory.
PAGES_AHEAD = 32
# Nice value of the threads that prepare pages: a third of the share of a thread at 0, where cores
# are scarce, so that they never starve the threads that run the model and answer.
_PAGE_NICENESS = 5


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
        max_queued_inputs: int,
        request_seconds: float,
    ) -> None:
        """Warm up `backend` in this thread.

        Args:
            backend: prepares inputs and runs the model.
            batch_tokens: see `LocalEmbedder`, as for the other limits.
            model_threads: batches that run at the same time.
            preprocess_threads: threads that prepare pages.
            max_queued_inputs: inputs that may wait at the same time.
            request_seconds: time budget of one request.

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
        self._backend: Any = backend  # Any: `tokenize` is optional
        self._device = hints.device
        self._threads = model_threads or hints.threads
        self._start_seconds = {**hints.load_seconds, "warm_up": warm.seconds}
        self._throughput = warm.throughput
        self._scheduler = Scheduler(warm.batch_tokens, padded=hints.padded)
        self._executor = BatchExecutor(
            backend, hints.device, self._scheduler, warm.throughput, self._finish
        )
        self._admission = Admission(warm.throughput, max_queued_inputs, request_seconds, threads)
        self._changed = threading.Condition()
        self._draining = False
        self._running = 0
        self._pages = ThreadPoolExecutor(threads, "pagevec-page", self._begin_page_thread)
        # Queries have a thread of their own, so that they never wait for a page to be decoded.
        self._queries = ThreadPoolExecutor(1, "pagevec-query", self._begin_thread)
        log.info("ready: %s", ", ".join(f"{k} {s:.2f} s" for k, s in self._start_seconds.items()))

    def submit_texts(self, request: Request, texts: Sequence[str], tokens: bool) -> bool:
        """Begin to embed texts; return False if the engine accepts no more requests."""
        return self._submit(request, self._start_texts, texts, tokens)

    def submit_pages(self, request: Request, pages: Sequence[EncodedImage]) -> bool:
        """Begin to embed page images; return False if the engine accepts no more requests."""
        return self._submit(request, self._start_pages, pages)

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
        others = [
            threading.Thread(target=self._run_batches, name="pagevec-model", daemon=True)
            for _ in range(self._threads - 1)
        ]
        for other in others:
            other.start()
        self._run_batches()
        for other in others:
            other.join()

    def drain(self) -> None:
        """Accept no more requests; `run` returns when those that were accepted are done."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads that prepare inputs, after `run` has returned."""
        self._pages.shutdown()
        self._queries.shutdown()

    # In the threads that prepare inputs

    def _submit(self, request: Request, start: Callable[..., None], *inputs: object) -> bool:
        with self._changed:
            if self._draining or self.failure is not None:
                return False
            self._admission.register(request)
        request.future.add_done_callback(lambda _: self._notify())
        self._queries.submit(self._guard, request, None, start, request, *inputs)
        return True

    def _start_texts(self, request: Request, texts: Sequence[str], tokens: bool) -> None:
        if tokens:
            self._require_tokens(request)
        started = time.perf_counter()
        prepared = self._backend.prepare_texts(texts)
        if len(prepared) != len(texts):
            raise InternalError(f"the backend prepared {len(prepared)} of {len(texts)} texts")
        if tokens:
            request.set_tokens(list(map(self._backend.tokenize, texts, prepared)))
        request.add_prepare(time.perf_counter() - started)
        self._admission.admit(request, [text.tokens for text in prepared])
        now = time.perf_counter()
        self._enqueue([Item(request, index, text, now) for index, text in enumerate(prepared)])

    def _start_pages(self, request: Request, pages: Sequence[EncodedImage]) -> None:
        tokens = [self._backend.page_tokens(page.width, page.height) for page in pages]
        self._admission.admit(request, tokens, sum(page.width * page.height for page in pages))
        for index, page in enumerate(pages):
            self._pages.submit(
                self._guard, request, index, self._prepare_page, request, index, page
            )

    def _prepare_page(self, request: Request, index: int, page: EncodedImage) -> None:
        self._wait_for_room(request)
        if request.abandoned:
            return
        started = time.perf_counter()
        prepared = self._backend.prepare_page(page)
        now = time.perf_counter()
        request.add_prepare(now - started)
        self._throughput.learn_prepare(page.width * page.height, now - started)
        self._enqueue([Item(request, index, prepared, now)])

    def _require_tokens(self, request: Request) -> None:
        if not self.info.tells_tokens:
            raise InvalidRequest("tokens: this model does not tell the tokens of texts")
        if request.pool_factor > 1:
            raise InvalidRequest("tokens: not available with pool_factor above 1")

    def _wait_for_room(self, request: Request) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._scheduler.pages < PAGES_AHEAD or request.abandoned)

    def _guard(
        self, request: Request, index: int | None, step: Callable[..., None], *arguments: object
    ) -> None:
        try:
            step(*arguments)
        except BaseException as error:
            request.fail(error, index)

    def _enqueue(self, items: list[Item]) -> None:
        with self._changed:
            for item in items:
                self._scheduler.add(item)
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _begin_thread(self) -> None:
        # One core for each thread: they share the work by inputs.
        self._device.share_cores(usable_cores())

    def _begin_page_thread(self) -> None:
        self._begin_thread()
        if sys.platform == "linux":  # elsewhere this would slow down the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PAGE_NICENESS)

    # In the threads that run the model

    def _run_batches(self) -> None:
        try:
            while batch := self._next_batch():
                at_once = self._begin_batch()
                self._device.share_cores(at_once)
                self._executor.run(batch, at_once)
                self._end_batch()
        except BaseException as error:
            log.exception("the engine stopped")
            self._stop(error)

    def _next_batch(self) -> list[Item]:
        """Wait for the next batch; empty when the engine failed, or is drained."""
        with self._changed:
            while not (batch := self._scheduler.next_batch(self._threads)):
                drained = self._draining and not self._admission.unfinished
                if drained or self.failure is not None:
                    break
                self._changed.wait()
            self._changed.notify_all()
            return batch

    def _begin_batch(self) -> int:
        """Count a batch that begins; return how many batches share the cores."""
        with self._changed:
            self._running += 1
            return self._threads if self._running > 1 or len(self._scheduler) else 1

    def _end_batch(self) -> None:
        with self._changed:
            self._running -= 1

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self.failure = error
            self._changed.notify_all()
        for request in self._admission.unfinished:
            request.fail(NotReady("the model failed; see the log of the service"))

    def _finish(self, item: Item, vectors: MultiVector, batch_size: int) -> None:
        if item.request.pool_factor == 1:
            _deliver(item, vectors, batch_size)
        else:
            self._pages.submit(
                self._guard, item.request, item.index, _deliver_pooled, item, vectors, batch_size
            )


def _deliver(item: Item, vectors: MultiVector, batch_size: int) -> None:
    item.request.deliver(item.index, vectors, token_count=item.tokens, batch_size=batch_size)


def _deliver_pooled(item: Item, vectors: MultiVector, batch_size: int) -> None:
    _deliver(item, pool(vectors, item.request.pool_factor), batch_size)
