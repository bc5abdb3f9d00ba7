"""The service inside a container that may start from a snapshot of its memory.

`prepare` comes before the snapshot: imports and weights, no thread of ours, no device, no key.
`start` comes after it, in every container: the device, threads, and keys as they are now.
"""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI

from pagevec.deploy.modal.corpus import (
    Document,
    EmbeddedDocument,
    documents_of_mount,
    embed_document,
)
from pagevec.deploy.modal.weights import require
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

log = logging.getLogger(__name__)


class Container:
    """One container's engine and application.

    Attributes:
        app: the ASGI application, from `start` on.
    """

    app: FastAPI

    def prepare(self, volume: str, gpu_snapshot: bool) -> None:
        """Import everything and read the weights; onto the GPU too where a snapshot keeps that.

        Raises:
            CheckpointError: `volume` does not hold the weights, or they do not load.
        """
        started = time.perf_counter()
        settings = Settings.from_environment()
        require(settings, volume)
        from pagevec.engine.embedder import LocalEmbedder  # noqa: F401 - imported for the snapshot
        from pagevec.engine.models.loader import find_device, on_device, read
        from pagevec.server.app import create_app  # noqa: F401
        from pagevec.server.logs import configure_logs

        configure_logs(settings)
        imported = time.perf_counter() - started
        model = read(settings)
        if gpu_snapshot:
            model = on_device(model, find_device(settings.device))
        self._model = replace(model, seconds={"import": imported, **model.seconds})
        log.info("prepared: import %.2f s, read %.2f s", imported, model.seconds["read"])

    def start(self) -> None:
        """Move the weights to the device, warm up, build the application.

        The application is built here, not in `prepare`: a snapshot would keep the keys that were
        valid when it was taken.

        Raises:
            ConfigurationError: there is no key, or no such device.
        """
        from pagevec.engine.embedder import LocalEmbedder
        from pagevec.engine.models.loader import find_device, on_device
        from pagevec.server.app import create_app

        self._since = time.monotonic()
        settings = Settings.from_environment()
        if not settings.keys:
            raise ConfigurationError("SERVICE_API_KEY is not set: put a key into the secret")
        model, device = self._model, find_device(settings.device)
        self.embedder = LocalEmbedder.of(settings, lambda: on_device(model, device))
        self.embedder.wait_until_ready()
        self.app = create_app(settings, self.embedder)

    def documents(self, address: str) -> list[Document]:
        """Return the documents of the bucket that is mounted and known as `address`."""
        return documents_of_mount(self._mount, address)

    def embed_document(self, document: Document) -> EmbeddedDocument:
        """Render and embed `document`."""
        return embed_document(self.embedder, document, self._mount)

    def stop(self) -> None:
        """Finish what was taken, release the model, say what is paid for."""
        self.embedder.close()
        busy, up = self.embedder.health().busy_seconds, time.monotonic() - self._since
        log.info("stopped: up %.1f s, of these the device was busy %.1f s", up, busy)

    @property
    def _mount(self) -> Path:
        return Path(os.environ["CORPUS_FOLDER"])
