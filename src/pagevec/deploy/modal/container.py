"""A container of the service, and the volume of weights that it reads.

A container may start from a snapshot of its memory. `Container.prepare` runs before the snapshot:
imports and weights, but no thread, no device and no key. `Container.start` runs after it, in every
container: the device, the threads, and the keys as they are now.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from huggingface_hub import snapshot_download, try_to_load_from_cache

from pagevec.deploy.modal.corpus import Document, EmbeddedDocument, embed_document, list_bucket
from pagevec.errors import CheckpointError, ConfigurationError
from pagevec.local import LocalModel
from pagevec.settings import Settings
from pagevec.stores.fingerprint import FINGERPRINT_TEXT
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

_DOWNLOAD = "modal run -m pagevec.deploy.modal.app::download"
_WEIGHT_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_SUBFOLDERS = ["*/*"]
_GB = 1e9


class Container:
    """The engine and the application of one container.

    Attributes:
        app: the ASGI application; set by `start`.
        embedder: the engine behind it; set by `start`.
        model: the engine as a `Model`, which embeds the documents of a corpus; set by `start`.
    """

    app: FastAPI

    def prepare(self, volume: str, gpu_snapshot: bool) -> None:
        """Import everything and read the weights.

        Args:
            volume: name of the volume of weights, for the error message.
            gpu_snapshot: move the weights to the GPU already, since the snapshot keeps its memory.

        Raises:
            CheckpointError: `volume` does not hold the weights, or they cannot be loaded.
        """
        started = time.perf_counter()
        settings = Settings.from_environment()
        require_weights(settings, volume)
        from pagevec.engine.backends.packed import backend  # noqa: F401 - for the snapshot
        from pagevec.engine.embedder import LocalEmbedder  # noqa: F401
        from pagevec.engine.models.loader import find_device, on_device, read
        from pagevec.server.app import create_app  # noqa: F401
        from pagevec.server.run import configure_logs

        configure_logs(settings)
        imported = time.perf_counter() - started
        model = read(settings)
        if gpu_snapshot:
            model = on_device(model, find_device(settings.device))
        self._loaded = replace(model, seconds={"import": imported, **model.seconds})
        log.info("prepared: import %.2f s, read %.2f s", imported, model.seconds["read"])

    def start(self) -> None:
        """Move the weights to the device, warm up, and build the application.

        The application is not built in `prepare`: the snapshot would keep the keys that were
        valid when it was taken.

        Raises:
            ConfigurationError: no API key is set, or there is no such device.
        """
        from pagevec.engine.backends import backend_of
        from pagevec.engine.embedder import LocalEmbedder, end_process_on_failure
        from pagevec.engine.models.loader import find_device, on_device
        from pagevec.server.app import create_app

        self._since = time.monotonic()
        settings = Settings.from_environment()
        if not settings.keys:
            raise ConfigurationError("SERVICE_API_KEY is not set: put a key into the Modal secret")
        loaded, device = self._loaded, find_device(settings.device)
        self.embedder = LocalEmbedder.of(settings, lambda: backend_of(on_device(loaded, device)))
        self.embedder.wait_until_ready()
        end_process_on_failure(self.embedder, _take_no_more_requests)
        self.model = LocalModel(self.embedder, settings.image_limits)
        self.app = create_app(settings, self.embedder)

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
        self.embedder.close()
        busy, up = self.embedder.health().busy_seconds, time.monotonic() - self._since
        log.info("stopped: up %.1f s, of these the device was busy %.1f s", up, busy)

    @property
    def _mount(self) -> Path:
        return Path(os.environ["CORPUS_FOLDER"])


def download_weights(settings: Settings, report: Callable[[str], None]) -> None:
    """Download the checkpoint that `settings` name, and the base model of an adapter.

    Files that are already there are not downloaded again.

    Args:
        settings: name the checkpoint, its revision and the Hugging Face token.
        report: called with a line before and after each repository.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: the checkpoint does not exist or needs permission.
    """
    if not _is_on_the_hub(settings.model):
        report(f"{settings.model} needs no download")
        return
    token = settings.huggingface_token
    secret = token.get_secret_value() if token else None
    folder = _download(settings.model, settings.revision, secret, report)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        _download(base, None, secret, report)


def require_weights(settings: Settings, volume: str) -> None:
    """Check that the checkpoint that `settings` name was downloaded.

    Raises:
        CheckpointError: it was not; the message has the command that fills `volume`.
    """
    files = ("config.json", "adapter_config.json")
    if _is_on_the_hub(settings.model) and not any(_is_cached(settings, file) for file in files):
        raise CheckpointError(
            f"the volume {volume!r} does not hold {settings.model}: run `{_DOWNLOAD}` "
            "with the same PAGEVEC_MODEL, then try again"
        )


def _take_no_more_requests() -> None:
    """Ask Modal for the end of this container; the next request gets another one."""
    from modal.experimental import stop_fetching_inputs

    try:
        stop_fetching_inputs()
    except Exception as error:  # the process ends all the same
        log.warning("Modal was not told that this container ends: %s", error)


def _is_on_the_hub(model: str) -> bool:
    return "/" in model and not Path(model).is_absolute()


def _is_cached(settings: Settings, file: str) -> bool:
    return isinstance(try_to_load_from_cache(settings.model, file, revision=settings.revision), str)


def _download(
    repository: str, revision: str | None, token: str | None, report: Callable[[str], None]
) -> Path:
    """Download what is read of a repository; return the folder."""
    options: dict[str, Any] = {
        "revision": revision,  # as it is looked up later: the cache notes which commit it is
        "token": token,
        "allow_patterns": _WEIGHT_FILES,
        "ignore_patterns": _SUBFOLDERS,
    }
    files = snapshot_download(repository, **options, dry_run=True)
    size = sum(file.file_size for file in files) / _GB
    missing = sum(file.file_size for file in files if file.will_download) / _GB
    report(
        f"{repository}: {len(files)} files, {size:.2f} GB, of which {missing:.2f} GB to download"
    )
    folder = Path(snapshot_download(repository, **options))
    report(f"{repository}: complete")
    return folder
