"""The documents that `pagevec serve` shows: the settings' store, or one for a demonstration."""

import logging
import re
from concurrent.futures import Future
from itertools import count
from pathlib import Path

from pagevec.engine.api import Embedder
from pagevec.errors import ConfigurationError, OtherModel
from pagevec.ingest.sources import STORE_FILE, find_documents
from pagevec.ingest.uploads import Uploads
from pagevec.local import LocalModel
from pagevec.search.library import Library
from pagevec.search.retriever import Retriever
from pagevec.settings import Settings
from pagevec.stores import folder_of, open_store
from pagevec.stores.base import Store
from pagevec.stores.fingerprint import FINGERPRINT_TEXT, check_model
from pagevec.types import Model, MultiVector

log = logging.getLogger(__name__)

_DEMO = Path("pagevec-demo")  # has a store for each model that was tried
_UPLOADS = "uploads"


class Shelf:
    """The store of a service, opened in two steps: itself at once, its library with the model.

    Args:
        settings: of the service.
        demo: documents to ingest.

    Attributes:
        settings: of the service, as they are with this store.
        library: the documents, once the model is ready.
        name: of the store.
        is_broken: whether the store turned out to be of no use with this model.

    Raises:
        ConfigurationError: uploads cannot be kept.
        StoreError: the store cannot be opened.
        InvalidRequest: a document of `demo` is not there, or of an unsupported type.
    """

    def __init__(self, settings: Settings, demo: tuple[Path, ...]) -> None:
        self.library: Future[Library] = Future()
        self.is_broken = False
        self._demo = demo
        find_documents(demo)  # names what is wrong with them before the model is loaded
        if settings.store is None:
            self.name = str(_DEMO)
            self.settings = settings.model_copy(update={"store": self.name, "uploads": True})
            self._store: Store | None = None
        else:
            self.name = settings.store
            self.settings = settings
            self._store = open_store(self.name, create=settings.uploads or bool(demo))

    @classmethod
    def of(cls, settings: Settings, demo: tuple[Path, ...]) -> "Shelf | None":
        """Return the shelf of a service; None for one that only embeds."""
        return cls(settings, demo) if settings.store is not None or demo else None

    def open(self, embedder: Embedder) -> None:
        """Open the library.

        Args:
            embedder: which is ready.

        Raises:
            PagevecError: the store has pages of another model, or uploads cannot be kept.
        """
        model = LocalModel(embedder, self.settings.image_limits)
        try:
            if self._store is None:
                self.name = str(_demo_store(model, _DEMO))
                self._store = open_store(self.name)
            Retriever(model, self._store).check_model()
            uploads = self._uploads(self._store) if self.settings.uploads else None
            most = self.settings.max_document_pages
            self.library.set_result(Library(self._store, model, uploads, most))
        except Exception as error:
            self.is_broken = True
            self.library.set_exception(error)
            raise

    def add_demo(self) -> None:
        """Ingest the documents of the demonstration; what is stored already is skipped.

        Whatever fails is logged: the service goes on.
        """
        try:
            outcomes = self.library.result().add(self._demo) if self._demo else []
        except Exception as error:
            log.error("the documents of the demonstration were not ingested: %s", error)
            return
        for outcome in outcomes:
            if outcome.error:
                log.warning("%s: %s", outcome.document, outcome.error)

    def close(self) -> None:
        """Close the library, or the store if the library was never opened."""
        if self.library.done() and not self.is_broken:
            self.library.result().close()
        elif self._store is not None:
            self._store.close()

    def _uploads(self, store: Store) -> Uploads:
        folder, of_store = self.settings.uploads_folder, folder_of(self.name)
        if folder is None and of_store is not None:
            folder = of_store / _UPLOADS
        if folder is None:
            raise ConfigurationError(
                "uploads to a store in a database need a folder for their files: "
                "--uploads-folder (PAGEVEC_UPLOADS_FOLDER)"
            )
        return Uploads(store, folder, self.settings.max_uploads_bytes)


def _demo_store(model: Model, folder: Path) -> Path:
    """Return the store in `folder` whose pages are of `model`, or where a new one may be made."""
    [made] = model.embed_texts([FINGERPRINT_TEXT])
    for known in sorted(folder.glob(f"*/{STORE_FILE}")):
        if _is_of(known.parent, made):
            return known.parent
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(model.info().model).name).strip("-.") or "model"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(folder / one for one in names if not (folder / one).exists())


def _is_of(place: Path, fingerprint: MultiVector) -> bool:
    with open_store(str(place), create=False) as store:
        try:
            check_model(store, fingerprint)
        except OtherModel:
            return False
    return True
