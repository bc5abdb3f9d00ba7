"""A container of the service, which reads the weights in the volume, or waits for them.

A container may start from a snapshot of its memory. `Container.prepare` runs before the snapshot:
imports and weights, but no thread, no device and no key. `Container.start` runs after it, in every
container: the device, the threads, and the keys as they are now. A snapshot that was taken before
the weights were in the volume holds the imports alone; `start` reads the weights then.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from pagevec.deploy.modal.corpus import Document, EmbeddedDocument, embed_document, list_bucket
from pagevec.deploy.modal.weights import is_whole
from pagevec.engine.models.files import describe
from pagevec.errors import ConfigurationError, Draining, NotReady, PagevecError
from pagevec.local import LocalModel
from pagevec.settings import Settings
from pagevec.stores.fingerprint import FINGERPRINT_TEXT
from pagevec.types import MultiVector

if TYPE_CHECKING:
    from pagevec.engine.models.loader import LoadedModel

log = logging.getLogger(__name__)

_LOAD_SECONDS = 5.0
_FETCH_SECONDS = 30.0
_FETCH_AGAIN_SECONDS = 60.0
_REFUSAL_SECONDS = 15.0  # in which all who waited for the container are answered


class Container:
    """The engine and the application of one container.

    Args:
        volume: name of the volume of weights, for messages.

    Attributes:
        app: the ASGI application; set by `start`.
        embedder: the engine behind it; set by `start`.
    """

    app: FastAPI

    def __init__(self, volume: str) -> None:
        self._volume = volume
        self._loaded: LoadedModel | None = None
        self._refusal = NotReady("the model is being loaded", retry_after=_LOAD_SECONDS)
        self._stopping = threading.Event()

    def prepare(self, gpu_snapshot: bool) -> None:
        """Import everything, and read the weights if the volume holds them.

        Args:
            gpu_snapshot: move the weights to the GPU already, since the snapshot keeps its memory.

        Raises:
            CheckpointError: the weights cannot be loaded.
        """
        started = time.perf_counter()
        settings = Settings.from_environment()
        from pagevec.engine.backends.packed import backend  # noqa: F401 - for the snapshot
        from pagevec.engine.embedder import LocalEmbedder  # noqa: F401
        from pagevec.engine.models.devices import find_device
        from pagevec.engine.models.loader import on_device, read
        from pagevec.server.app import create_app  # noqa: F401
        from pagevec.server.run import configure_logs

        configure_logs(settings)
        imported = time.perf_counter() - started
        if not is_whole(settings):
            log.info("prepared: import %.2f s, and no weights to read yet", imported)
            return
        model = read(settings)
        if gpu_snapshot:
            with suppress(ConfigurationError):  # which `start` meets again, and tells callers
                model = on_device(model, find_device(settings))
        self._loaded = replace(model, seconds={"import": imported, **model.seconds})
        log.info("prepared: import %.2f s, read %.2f s", imported, model.seconds["read"])

    def start(self, fetch: Callable[[], object], reload: Callable[[], object]) -> None:
        """Move the weights to the device, warm up, and build the application.

        The application is not built in `prepare`: the snapshot would keep the keys that were
        valid when it was taken. Where the volume does not hold the weights yet, it answers 503
        until another container has fetched them.

        A model that cannot be loaded here, since the GPU is missing or not able, is no error of the
        start: Modal would start one container after the other for the same request. It is answered
        with the reason, and then the container ends.

        Args:
            fetch: lets another container fetch the weights; returns when they are in the volume.
            reload: shows this container what the volume holds now.

        Raises:
            ConfigurationError: no API key is set.
        """
        from pagevec.engine.backends import choose_backend
        from pagevec.engine.embedder import LocalEmbedder, supervise
        from pagevec.engine.models.devices import find_device
        from pagevec.engine.models.loader import on_device, read
        from pagevec.server.app import create_app

        self._since = time.monotonic()
        settings = Settings.from_environment()
        if not settings.keys:
            raise ConfigurationError("SERVICE_API_KEY is not set: put a key into the Modal secret")
        if self._loaded is None:
            reload()
        has_weights = self._loaded is not None or is_whole(settings)

        def load() -> Any:
            try:
                device = find_device(settings)
                if not has_weights:
                    self._wait_for_weights(settings, fetch, reload)
                loaded = on_device(self._loaded or read(settings), device)
                return choose_backend(
                    loaded, settings.forward, lambda: on_device(read(settings), device)
                )
            except Draining:
                raise
            except Exception as error:
                self._end_soon(error)
                raise

        self.embedder = LocalEmbedder.of(settings, load, lambda: self._refusal)
        supervise(self.embedder, _take_no_more_requests)
        self.app = create_app(settings, self.embedder)
        self._model = LocalModel(self.embedder, settings.image_limits)
        if has_weights:
            with suppress(Exception):  # callers are told
                self.embedder.wait_until_ready()

    @property
    def model(self) -> LocalModel:
        """The engine as a `Model`, which embeds the documents of a corpus, once it is ready."""
        self.embedder.wait_until_ready()
        return self._model

    def fingerprint(self) -> MultiVector:
        """Return the fingerprint of the model: float32 (vectors, dim)."""
        [vectors] = self.model.embed_texts([FINGERPRINT_TEXT])
        return vectors

    def list_bucket(self, address: str) -> list[Document]:
        """Return the documents of the mounted bucket, named below `address`."""
        return list_bucket(self._mount, address)

    def embed_document(self, document: Document) -> EmbeddedDocument:
        """Render and embed the pages of `document`."""
        return embed_document(self.model, document, self._mount)

    def stop(self) -> None:
        """Finish the requests in flight, release the model, and log how long it was used."""
        self._stopping.set()
        up = time.monotonic() - self._since
        if self.embedder.health().state == "loading":
            log.info("stopped before the model was ready: up %.1f s", up)
            return  # the thread that loads may wait for another container
        self.embedder.close()
        busy = self.embedder.health().busy_seconds
        log.info("stopped: up %.1f s, of these the device was busy %.1f s", up, busy)

    def _wait_for_weights(
        self, settings: Settings, fetch: Callable[[], object], reload: Callable[[], object]
    ) -> None:
        """Return when the volume holds the weights; tell callers and the log until then."""
        loading = self._refusal
        where = f"the weights of {settings.model} into the volume {self._volume!r}"
        self._refuse(f"fetching {where}: the app's log shows how far", _FETCH_SECONDS)
        while True:
            try:
                fetch()
                reload()
                fault = "they do not show up there"
            except Exception as error:  # whatever it is, the next try may be better
                fault = error.message if isinstance(error, PagevecError) else describe(error)
            if is_whole(settings):
                break
            if self._stopping.is_set():
                raise Draining("this container stops")
            again = f"the next try is in {_FETCH_AGAIN_SECONDS:.0f} s"
            self._refuse(f"cannot fetch {where}: {fault}; {again}", _FETCH_AGAIN_SECONDS)
            self._stopping.wait(_FETCH_AGAIN_SECONDS)
        self._refusal = loading

    def _end_soon(self, error: Exception) -> None:
        """End this container, whose model cannot be loaded, once the waiting have been told."""
        fault = error.message if isinstance(error, PagevecError) else describe(error)
        log.error("this container ends, since it cannot serve: %s", fault)

        def end() -> None:
            self.embedder.failed.set()

        timer = threading.Timer(_REFUSAL_SECONDS, end)
        timer.daemon = True
        timer.start()

    def _refuse(self, message: str, retry_after: float) -> None:
        self._refusal = NotReady(message, retry_after=retry_after)
        log.warning("%s", self._refusal.message)

    @property
    def _mount(self) -> Path:
        return Path(os.environ["CORPUS_FOLDER"])


def _take_no_more_requests() -> None:
    """Ask Modal for the end of this container; the next request gets another one."""
    from modal.experimental import stop_fetching_inputs

    try:
        stop_fetching_inputs()
    except Exception as error:  # the process ends all the same
        log.warning("Modal was not told that this container ends: %s", error)
