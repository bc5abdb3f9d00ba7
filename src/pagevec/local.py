"""The model in this process: `pagevec.load`, with the same calls as a client of a service."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pagevec import __version__
from pagevec.client.images import image_file
from pagevec.engine.api import Embedded, Embedder
from pagevec.errors import LoadedElsewhere, PagevecError
from pagevec.images import EncodedImage, read_image
from pagevec.limits import ImageLimits
from pagevec.settings import Settings
from pagevec.types import ImageInput, Limits, ModelInfo, MultiVector, Query

if TYPE_CHECKING:
    from pagevec.engine.embedder import LocalEmbedder

T = TypeVar("T")

# A long list goes through the engine in parts, so that not all of its pages wait in memory.
_PART = 32
_PARTS_AT_ONCE = 2
# Nobody else waits for the model of this process, so no call is too long for it.
_REQUEST_SECONDS = 86_400.0


class LocalModel:
    """A model in this process. Its methods may be called from several threads.

    A process that is forked from this one has to load a model of its own: the threads that run
    this one do not go along, so its methods raise `LoadedElsewhere` there.

    Args:
        embedder: runs the model; closed with this one.
        limits: what one image may be at most.
    """

    def __init__(self, embedder: Embedder, limits: ImageLimits | None = None) -> None:
        self._running = embedder
        self._process = os.getpid()
        self._limits = limits or ImageLimits()

    def embed_images(
        self, images: Sequence[ImageInput], *, pool_factor: int = 1
    ) -> list[MultiVector]:
        """Return one multi-vector for each page image, in order; all or none.

        Args:
            images: paths, image files' bytes, Pillow images, or uint8 pixels (h, w[, 3 or 4]).
            pool_factor: merges similar vectors until about 1 / `pool_factor` are left.

        Returns:
            float32 arrays (vectors, dim), rows of unit length.

        Raises:
            PagevecError: an image cannot be read or is over a limit; `index` says which.
        """

        def embed(part: Sequence[ImageInput], first: int) -> Future[Embedded]:
            read = [self._read(image, first + place) for place, image in enumerate(part)]
            return self._embedder.embed_images(read, pool_factor)

        return self._embed_parts(embed, images)

    def embed_texts(self, texts: Sequence[str], *, pool_factor: int = 1) -> list[MultiVector]:
        """Return one multi-vector for each text, in order; all or none.

        Args:
            texts: queries or passages.
            pool_factor: merges similar vectors until about 1 / `pool_factor` are left.

        Returns:
            float32 arrays (vectors, dim), rows of unit length.

        Raises:
            PagevecError: a text is not valid Unicode or too long; `index` says which.
        """

        def embed(part: Sequence[str], first: int) -> Future[Embedded]:
            return self._embedder.embed_texts(part, pool_factor)

        return self._embed_parts(embed, texts)

    def embed_query(self, text: str) -> MultiVector:
        """Return the multi-vector, float32 (vectors, dim), of a query. Raises as `embed_texts`."""
        return self.embed_texts([text])[0]

    def embed_query_with_tokens(self, text: str) -> Query:
        """Return a query's multi-vector, with the token behind each vector.

        The tokens are empty where the model does not tell them (see `ModelInfo.tells_tokens`).
        Raises as `embed_texts`.
        """
        tells = self._embedder.info().tells_tokens
        embedded = self._embedder.embed_texts([text], tokens=tells).result()
        return Query(text, embedded.vectors[0], embedded.tokens[0] if embedded.tokens else ())

    def info(self) -> ModelInfo:
        """Return which model embeds, where it runs, and the limits on images."""
        limits = Limits(
            max_image_bytes=self._limits.max_bytes,
            max_image_pixels=self._limits.max_pixels,
            max_image_side=self._limits.max_side,
        )
        return replace(self._embedder.info(), version=__version__, limits=limits)

    def close(self) -> None:
        """Finish what was asked for and release the model; in a forked process, do nothing."""
        if self._process == os.getpid():
            self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _embedder(self) -> Embedder:
        if self._process != os.getpid():
            raise LoadedElsewhere(
                f"the model was loaded in process {self._process}, and this one was forked from "
                "it: call pagevec.load in each process that uses the model, or start processes "
                'with multiprocessing.get_context("spawn")'
            )
        return self._running

    def _read(self, image: ImageInput, index: int) -> EncodedImage:
        try:
            return read_image(image_file(image, resizing=None), self._limits)
        except PagevecError as error:
            raise error.at(index) from error

    def _embed_parts(
        self, embed: Callable[[Sequence[T], int], Future[Embedded]], inputs: Sequence[T]
    ) -> list[MultiVector]:
        if isinstance(inputs, (str, bytes)):
            raise TypeError("give a list of inputs, not a single one")
        running: deque[tuple[int, Future[Embedded]]] = deque()
        vectors: list[MultiVector] = []
        try:
            for first in range(0, len(inputs), _PART):
                running.append((first, embed(inputs[first : first + _PART], first)))
                if len(running) == _PARTS_AT_ONCE:
                    vectors += _result(*running.popleft())
            while running:
                vectors += _result(*running.popleft())
        finally:
            for _, future in running:
                future.cancel()
        return vectors


def _result(first: int, future: Future[Embedded]) -> list[MultiVector]:
    try:
        return future.result().vectors
    except PagevecError as error:
        raise error if error.index is None else error.at(first + error.index) from error


def load(model: str | None = None, **settings: Any) -> LocalModel:
    """Load a model into this process.

    Args:
        model: `bundled` (the small model in the package), a checkpoint's name on the hub, a local
            directory, or `auto`: the default checkpoint where CUDA is found, else `bundled`.
            Default: what PAGEVEC_MODEL says, else `auto`.
        settings: any setting of the service by its name, such as `device="cuda:1"` or
            `batch_tokens=4096`; environment variables and `.env` count too.

    Returns:
        The model, ready. Use it in a `with` block, or close it.

    Raises:
        ConfigurationError: a setting is wrong.
        CheckpointError: the checkpoint cannot be found, or did not load completely.

    >>> model = load("bundled")  # doctest: +SKIP
    >>> [page] = model.embed_images(["scan.png"])  # doctest: +SKIP
    """
    embedder, loaded = begin_to_load(model, **settings)
    try:
        embedder.wait_until_ready()
    except BaseException:
        embedder.close()
        raise
    return loaded


def begin_to_load(model: str | None = None, **settings: Any) -> "tuple[LocalEmbedder, LocalModel]":
    """Begin to load a model into this process, in a thread of its own.

    Args:
        model: as for `load`.
        settings: as for `load`.

    Returns:
        What says when the model is ready, and the model, whose calls raise `NotReady` until then.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    from pagevec.engine.backends import load as load_backend
    from pagevec.engine.embedder import LocalEmbedder

    options = {"request_seconds": _REQUEST_SECONDS, **settings}
    known = Settings.from_environment(model=model, **options)
    embedder = LocalEmbedder.of(known, lambda: load_backend(known))
    return embedder, LocalModel(embedder, known.image_limits)
