"""The `Embedder` on this machine: loads a backend in the background, then works with it."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Self

from pagevec.engine.admission import Budgets
from pagevec.engine.api import Embedded, Health, Memory, State
from pagevec.engine.backends.base import Backend
from pagevec.engine.engine import Engine
from pagevec.engine.requests import Request
from pagevec.errors import Draining, EngineFailed, NotReady, PagevecError
from pagevec.images import EncodedImage
from pagevec.machine import release_freed_memory, settle_memory
from pagevec.settings import Settings
from pagevec.types import ModelInfo

log = logging.getLogger(__name__)

EXIT_ENGINE_FAILED = 70
"""Exit code of a process whose engine failed: EX_SOFTWARE of sysexits.h."""

WIND_DOWN_SECONDS = 5.0
"""Seconds that a process with a failed engine has to end by itself."""

_RETRY_WHILE_LOADING = 5.0
# Freed memory is given back no more often: pages that are used again cost time.
_RELEASE_SECONDS = 30.0


def _say_loading() -> NotReady:
    return NotReady("the model is being loaded", retry_after=_RETRY_WHILE_LOADING)


class LocalEmbedder:
    """Implements `Embedder`. Loading starts at once, in the thread that will run the model.

    Attributes:
        failed: set when the engine failed after it was ready: it does not come back, and only a
            new process helps. See `supervise`. Who sets it ends the process, too.
    """

    def __init__(
        self,
        load: Callable[[], Backend[Any]],
        *,
        batch_tokens: int | None = None,
        model_threads: int | None = None,
        preprocess_threads: int | None = None,
        max_queued_inputs: int = Budgets.queued_inputs,
        request_seconds: float = Budgets.request_seconds,
        max_answer_bytes: int = Budgets.answer_bytes,
        max_working_bytes: int = Budgets.working_bytes,
        say_loading: Callable[[], NotReady] = _say_loading,
    ) -> None:
        """Begin to load.

        Args:
            load: returns the backend, such as `lambda: pagevec.engine.backends.load(settings)`.
            batch_tokens: tokens of one batch; default: what the backend's hints say.
            model_threads: batches that run at the same time; default: what the hints say.
            preprocess_threads: threads that prepare pages; default: one for each core.
            max_queued_inputs: inputs that may wait at the same time.
            request_seconds: time budget of one request.
            max_answer_bytes: bytes of one answer, where callers say what a vector takes.
            max_working_bytes: bytes that decoding pictures and pooling hold at the same time.
            say_loading: returns what callers are told while it loads.
        """
        budgets = Budgets(max_queued_inputs, request_seconds, max_answer_bytes, max_working_bytes)
        self.failed = threading.Event()
        self._say_loading = say_loading
        build = partial(
            Engine,
            batch_tokens=batch_tokens,
            model_threads=model_threads,
            preprocess_threads=preprocess_threads,
            budgets=budgets,
            failed=self.failed,
        )
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._failure: BaseException | None = None
        self._loaded = threading.Event()
        self._closed = False
        self._thread = threading.Thread(
            target=lambda: self._run(load, build), name="pagevec-model", daemon=True
        )
        self._thread.start()

    @classmethod
    def of(
        cls,
        settings: Settings,
        load: Callable[[], Backend[Any]],
        say_loading: Callable[[], NotReady] = _say_loading,
    ) -> Self:
        """Return an embedder with the limits of `settings`."""
        return cls(
            load,
            batch_tokens=settings.batch_tokens,
            model_threads=settings.model_threads,
            preprocess_threads=settings.preprocess_threads,
            max_queued_inputs=settings.max_queued_inputs,
            request_seconds=settings.request_seconds,
            max_answer_bytes=settings.max_answer_bytes,
            max_working_bytes=settings.max_working_bytes,
            say_loading=say_loading,
        )

    def info(self) -> ModelInfo:
        """See `Embedder.info`."""
        if self._engine is None or self._state == "failed":
            raise self._refusal()
        return self._engine.info

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until the model is loaded.

        Args:
            timeout: seconds to wait at most; None for any time.

        Raises:
            NotReady: it takes longer than `timeout`.
            BaseException: whatever loading raised.
        """
        if not self._loaded.wait(timeout):
            raise self._refusal()
        if error := self._error:
            raise error

    def embed_texts(
        self,
        texts: Sequence[str],
        pool_factor: int = 1,
        *,
        tokens: bool = False,
        caller: str = "",
        vector_bytes: int = 0,
    ) -> Future[Embedded]:
        """See `Embedder.embed_texts`."""
        request = Request(
            len(texts),
            is_query=True,
            pool_factor=pool_factor,
            caller=caller,
            vector_bytes=vector_bytes,
        )
        engine = self._engine
        if texts and not (engine and engine.submit_texts(request, texts, tokens)):
            request.fail(self._refusal())
        return request.future

    def embed_images(
        self,
        images: Sequence[EncodedImage],
        pool_factor: int = 1,
        *,
        caller: str = "",
        vector_bytes: int = 0,
    ) -> Future[Embedded]:
        """See `Embedder.embed_images`."""
        request = Request(
            len(images),
            is_query=False,
            pool_factor=pool_factor,
            caller=caller,
            vector_bytes=vector_bytes,
        )
        engine = self._engine
        if images and not (engine and engine.submit_pages(request, images)):
            request.fail(self._refusal())
        return request.future

    def health(self) -> Health:
        """See `Embedder.health`."""
        if self._engine is None:
            return Health(self._state, 0, 0, 0, Memory(0, 0, 0), 0.0)
        return replace(self._engine.health(), state=self._state)

    def close(self) -> None:
        """See `Embedder.close`."""
        with self._lock:
            self._closed = True
            engine = self._engine
        if engine is not None:
            engine.drain()
        self._thread.join()
        if self._engine is not None:
            self._engine.close()

    @property
    def _error(self) -> BaseException | None:
        """What stopped the loading or the engine."""
        return self._engine.failure if self._engine else self._failure

    @property
    def _state(self) -> State:
        if self._error is not None:
            return "failed"
        if self._closed:
            return "draining"
        return "ready" if self._engine else "loading"

    def _refusal(self) -> PagevecError:
        if self._state == "draining":
            return Draining("the service is shutting down; ask another one")
        if self._state == "failed":
            if isinstance(self._failure, PagevecError):  # while it was loaded
                return EngineFailed(f"the model cannot be served: {self._failure.message}")
            return EngineFailed("the model failed for good; see the log of the service")
        return self._say_loading()

    def _run(self, load: Callable[[], Backend[Any]], build: Callable[..., Engine]) -> None:
        try:
            engine = build(load())
        except BaseException as error:
            if not isinstance(
                error, PagevecError
            ):  # whose message is enough for `wait_until_ready`
                log.exception("the model could not be loaded")
            self._failure = error
            self._loaded.set()
            return
        with self._lock:
            self._engine = engine
            closed = self._closed
        self._loaded.set()
        if closed:
            engine.drain()
        engine.run()


def supervise(embedder: LocalEmbedder, wind_down: Callable[[], object]) -> None:
    """Keep the memory of a service small, and end this process when the engine fails.

    Whoever supervises the process starts a new one.

    Args:
        embedder: whose engine is watched, in a thread.
        wind_down: called when it has failed; lets the answers in flight go out. If the process
            has not ended by itself `WIND_DOWN_SECONDS` later, it is ended.
    """

    def watch() -> None:
        with suppress(Exception):  # which the thread that loads has logged
            embedder.wait_until_ready()
            settle_memory()
        while not embedder.failed.wait(_RELEASE_SECONDS):
            release_freed_memory()
        log.error("the engine failed for good: this process ends with code %d", EXIT_ENGINE_FAILED)
        wind_down()
        time.sleep(WIND_DOWN_SECONDS)
        logging.shutdown()
        os._exit(EXIT_ENGINE_FAILED)  # other threads may be stuck in calls to a lost device

    threading.Thread(target=watch, name="pagevec-watch", daemon=True).start()
