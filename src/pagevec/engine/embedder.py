"""The Embedder on this machine: threads prepare inputs, and one or a few run the model."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self, cast

from pagevec.engine.admission import Admission
from pagevec.engine.api import Embedded, Health, Memory, State
from pagevec.engine.backends.preprocess import one_thread_behind, one_thread_each, share_cores
from pagevec.engine.executor import Passes
from pagevec.engine.memory import memory_of
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.pooling import pool
from pagevec.engine.requests import Item, Job
from pagevec.engine.scheduler import Scheduler
from pagevec.errors import Draining, NotReady, PagevecError
from pagevec.images import EncodedImage
from pagevec.settings import Settings
from pagevec.types import ModelInfo, MultiVector

log = logging.getLogger(__name__)

# Pages prepared ahead of the model: enough to keep it busy, few enough to bound the memory.
PAGES_AHEAD = 32
_RETRY_WHILE_LOADING = 5.0


class LocalEmbedder:
    """Implements `Embedder`. Loading starts at once, in the thread that will run the model."""

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        *,
        batch_tokens: int | None = None,
        model_threads: int | None = None,
        preprocess_threads: int | None = None,
        max_queued_inputs: int = 10_000,
        request_seconds: float = 120.0,
    ) -> None:
        threads = preprocess_threads or os.cpu_count() or 1
        self._load = load
        self._batch_tokens = batch_tokens
        self._model_threads = model_threads
        self._state: State = "loading"
        self._failure: BaseException | None = None
        self._loaded = threading.Event()
        self._changed = threading.Condition()
        self._scheduler: Scheduler[Item] = Scheduler(batch_tokens or 0)
        self._open: set[Job] = set()
        self._running = 0
        self._admission = Admission(max_queued_inputs, request_seconds, threads)
        self._pages = ThreadPoolExecutor(threads, "pagevec-page", initializer=one_thread_behind)
        # Queries have a thread of their own: they never wait behind a page's decoding.
        self._queries = ThreadPoolExecutor(1, "pagevec-query", initializer=one_thread_each)
        self._worker = self._model_thread(self._work)

    @classmethod
    def of(cls, settings: Settings, load: Callable[[], LoadedModel]) -> Self:
        """Return an embedder with the limits of `settings`."""
        return cls(
            load,
            batch_tokens=settings.batch_tokens,
            model_threads=settings.model_threads,
            preprocess_threads=settings.preprocess_threads,
            max_queued_inputs=settings.max_queued_inputs,
            request_seconds=settings.request_seconds,
        )

    @property
    def info(self) -> ModelInfo:
        """What answers. Raises NotReady while the model is being loaded."""
        if not self._loaded.is_set() or self._failure is not None:
            raise self._not_ready()
        return self._model.info

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait for the model. Raises what loading raised, or NotReady after `timeout` seconds."""
        if not self._loaded.wait(timeout):
            raise self._not_ready()
        if self._failure is not None:
            raise self._failure

    def embed(
        self, inputs: Sequence[str] | Sequence[EncodedImage], pool_factor: int = 1
    ) -> Future[Embedded]:
        """See `Embedder.embed`."""
        job = Job(inputs, pool_factor)
        with self._changed:
            ready = self._state == "ready"
            if ready and inputs:
                self._open.add(job)
        if not ready:
            job.fail(self._not_ready())
        elif inputs:
            job.future.add_done_callback(lambda _: self._end(job))
            self._start(job)
        return job.future

    def health(self) -> Health:
        """See `Embedder.health`."""
        with self._changed:
            tokens, budget = self._scheduler.tokens, self._scheduler.budget
        ready = self._loaded.is_set() and self._failure is None
        return Health(
            state=self._state,
            queued_inputs=self._admission.inputs,
            queued_tokens=tokens,
            batch_tokens=budget,
            memory=memory_of(self._model.device) if ready else Memory(0, 0, 0),
            busy_seconds=self._passes.busy_seconds if ready else 0.0,
            start_seconds=self._start_seconds if ready else {},
        )

    def close(self) -> None:
        """See `Embedder.close`."""
        with self._changed:
            if self._state != "failed":
                self._state = "draining"
            self._changed.notify_all()
        self._worker.join()
        self._pages.shutdown()
        self._queries.shutdown()

    def _not_ready(self) -> PagevecError:
        if self._state == "draining":
            return Draining("the service is shutting down; ask another one")
        if self._state == "failed":
            return NotReady("the model failed; the reason is in the service's log")
        return NotReady("the model is being loaded", retry_after=_RETRY_WHILE_LOADING)

    # The way of a request, on the threads that prepare

    def _start(self, job: Job) -> None:
        begin = self._start_texts if job.is_query else self._start_pages
        self._queries.submit(self._guarded, job, None, begin, job)

    def _start_texts(self, job: Job) -> None:
        started = time.perf_counter()
        prepared = self._model.preprocessor.texts(cast(Sequence[str], job.inputs))
        job.add_prepare(time.perf_counter() - started)
        self._admission.admit(job, [text.tokens for text in prepared])
        now = time.perf_counter()
        self._enqueue([Item(job, i, text, now) for i, text in enumerate(prepared)])

    def _start_pages(self, job: Job) -> None:
        pages = cast(Sequence[EncodedImage], job.inputs)
        tokens = [self._model.preprocessor.page_tokens(p.width, p.height) for p in pages]
        self._admission.admit(job, tokens, sum(page.width * page.height for page in pages))
        for index, page in enumerate(pages):
            self._pages.submit(self._guarded, job, index, self._prepare_page, job, index, page)

    def _prepare_page(self, job: Job, index: int, page: EncodedImage) -> None:
        self._wait_for_room(job)
        if job.abandoned:
            return
        started = time.perf_counter()
        prepared = self._model.preprocessor.page(page)
        now = time.perf_counter()
        job.add_prepare(now - started)
        self._admission.speed.learn_prepare(page.width * page.height, now - started)
        self._enqueue([Item(job, index, prepared, now)])

    def _wait_for_room(self, job: Job) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._scheduler.pages < PAGES_AHEAD or job.abandoned or self._state == "failed"
                )
            )

    def _guarded(
        self, job: Job, index: int | None, step: Callable[..., None], *arguments: object
    ) -> None:
        try:
            step(*arguments)
        except BaseException as error:
            job.fail(error, index)

    def _end(self, job: Job) -> None:
        with self._changed:
            self._open.discard(job)
            self._changed.notify_all()

    def _enqueue(self, items: list[Item]) -> None:
        with self._changed:
            for item in items:
                self._scheduler.add(item)
            self._changed.notify_all()

    # The threads that run the model

    def _work(self) -> None:
        with self._failing_together():
            self._make_ready()
            others = [self._model_thread(self._run_batches) for _ in range(self._threads - 1)]
            self._run_batches()
            for other in others:
                other.join()

    def _run_batches(self) -> None:
        with self._failing_together():
            while batch := self._next_batch():
                at_once = self._sharing()
                share_cores(at_once)
                self._passes.run(batch, at_once)
                self._done()

    @contextmanager
    def _failing_together(self) -> Iterator[None]:
        try:
            yield
        except PagevecError as error:
            self._stop_failed(error)  # a sentence for whoever started it
        except BaseException as error:
            log.exception("the engine stopped")
            self._stop_failed(error)

    def _model_thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="pagevec-model", daemon=True)
        thread.start()
        return thread

    def _make_ready(self) -> None:
        self._model = self._load()
        self._threads = self._model_threads or self._model.default_threads
        passes = Passes(self._model, self._scheduler, self._admission.speed, self._finish)
        started = time.perf_counter()
        passes.warm_up(self._batch_tokens or self._model.default_batch_tokens)
        warm_up = time.perf_counter() - started
        self._start_seconds = {**self._model.seconds, "warm_up": warm_up}
        self._passes = passes
        with self._changed:
            if self._state == "loading":
                self._state = "ready"
        self._loaded.set()
        log.info("ready: %s", ", ".join(f"{k} {s:.2f} s" for k, s in self._start_seconds.items()))

    def _stop_failed(self, error: BaseException) -> None:
        with self._changed:
            self._failure, self._state = error, "failed"
            jobs = list(self._open)
            self._changed.notify_all()
        self._loaded.set()
        for job in jobs:
            job.fail(self._not_ready())

    def _next_batch(self) -> list[Item]:
        """Wait for the next batch; empty when the embedder is closed and nothing is left."""
        with self._changed:
            while not (batch := self._scheduler.next_batch(self._threads)):
                if self._state == "failed" or (self._state == "draining" and not self._open):
                    break
                self._changed.wait()
            self._changed.notify_all()
            return batch

    def _sharing(self) -> int:
        """Begin a pass; return how many share the cores: one alone has them all."""
        with self._changed:
            self._running += 1
            return self._threads if self._running > 1 or len(self._scheduler) else 1

    def _done(self) -> None:
        with self._changed:
            self._running -= 1

    def _finish(self, item: Item, vectors: MultiVector, batch_size: int) -> None:
        factor = item.job.pool_factor
        if factor == 1:
            item.job.deliver(item.index, vectors, tokens=item.tokens, batch_size=batch_size)
        else:
            self._pages.submit(
                self._guarded, item.job, item.index, _deliver_pooled, item, vectors, batch_size
            )


def _deliver_pooled(item: Item, vectors: MultiVector, batch_size: int) -> None:
    pooled = pool(vectors, item.job.pool_factor)
    item.job.deliver(item.index, pooled, tokens=item.tokens, batch_size=batch_size)
