"""A drop-in for morphik-core's `ColpaliApiEmbeddingModel`, over pagevec's client.

It has the same methods and takes the same chunks, but imports nothing of morphik-core. It adds what
the client does: temporary failures are retried, connections are kept, several requests run at the
same time, and the order and number of the answers are checked.
"""

import base64
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pagevec.client import AsyncClient
from pagevec.client.retry import is_passing
from pagevec.errors import ConfigurationError, InvalidImage, PagevecError
from pagevec.morphik.installation import DOMAIN, VARIABLE, MorphikSettings
from pagevec.morphik.release import remove_format
from pagevec.types import MultiVector

if TYPE_CHECKING:
    from PIL.Image import Image


class EmbeddingUnavailableError(PagevecError, ConnectionError):
    """The service could not be reached, or was busy, until the client gave up.

    morphik-core's worker retries a document after a `ConnectionError`; since July 2026 also after
    an error of this name, which its own client raises.
    """

    code, status = "unavailable", 503


class Chunk(Protocol):
    """The part of morphik-core's chunks that is used."""

    @property
    def content(self) -> str:
        """A text, or an image in base64, bare or as a data URI."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Has `is_image` if the content is an image."""


class ColpaliApiEmbeddingModel:
    """Embeds chunks and queries with the service.

    Args:
        url: address of the service, or several; default: those in `morphik.toml` in the current
            folder.
        key: of the service; default: the environment variable MORPHIK_EMBEDDING_API_KEY.
        options: further arguments of `pagevec.client.AsyncClient`, such as `ca` and `patience`.

    Raises:
        ConfigurationError: the address or the key is neither given nor found.
    """

    def __init__(
        self, url: str | Sequence[str] | None = None, key: str | None = None, **options: Any
    ) -> None:
        domains = [url] if isinstance(url, str) else url or MorphikSettings.read(Path()).domains
        self.api_key = key or os.environ.get(VARIABLE)
        if not domains or not self.api_key:
            raise ConfigurationError(f"{DOMAIN} and {VARIABLE} must both be set")
        self.endpoints = [remove_format(domain) for domain in domains]
        self._client = AsyncClient(self.endpoints, self.api_key, **options)
        self._timing: dict[str, float] = {}

    async def embed_for_ingestion(self, chunks: Chunk | Sequence[Chunk]) -> list[MultiVector]:
        """Return the multi-vector of each chunk.

        Args:
            chunks: texts and images, mixed.

        Returns:
            float32 arrays (vectors, dim), rows of unit length, in the order of the chunks.

        Raises:
            EmbeddingUnavailableError: a later attempt may succeed.
            PagevecError: the service refused the request; `index` is the chunk at fault.
        """
        many = chunks if isinstance(chunks, Sequence) else [chunks]
        images = [at for at, chunk in enumerate(many) if chunk.metadata.get("is_image")]
        texts = [at for at, chunk in enumerate(many) if not chunk.metadata.get("is_image")]
        client, started = self._client, time.monotonic()
        files = [_image_file(many[at].content, at) for at in images]
        # Not resized by the client: the vectors are those of the page as morphik-core rendered it.
        request = client.embed_images(files, dtype="float32", resize=False)
        found = dict(zip(images, await _await_answers(request, images), strict=True))
        between = time.monotonic()
        request = client.embed_texts([many[at].content for at in texts], dtype="float32")
        found |= zip(texts, await _await_answers(request, texts), strict=True)
        self._timing = _timing(started, between, len(images), len(texts)) if many else {}
        return [found[at] for at in range(len(many))]

    async def embed_for_query(self, text: str) -> MultiVector:
        """Return the multi-vector of a query: float32 (vectors, dim)."""
        return (await _await_answers(self._client.embed_texts([text], dtype="float32"), [0]))[0]

    async def generate_embeddings(self, content: "str | Image") -> MultiVector:
        """Return the multi-vector of a text or a Pillow image: float32 (vectors, dim)."""
        if isinstance(content, str):
            return await self.embed_for_query(content)
        request = self._client.embed_images([content], dtype="float32", resize=False)
        return (await _await_answers(request, [0]))[0]

    def latest_ingest_metrics(self) -> dict[str, float]:
        """Return seconds and counts of the last `embed_for_ingestion`; empty before the first."""
        return dict(self._timing)

    def latest_ingest_timing(self) -> dict[str, float]:
        """Return `latest_ingest_metrics()`; later releases use this name."""
        return self.latest_ingest_metrics()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._client.aclose()


def _image_file(content: str, place: int) -> bytes:
    encoded = content.partition(",")[2] if content.startswith("data:") else content
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidImage(f"the chunk is not an image in base64: {error}", index=place) from None


async def _await_answers(
    request: Awaitable[list[MultiVector]], places: Sequence[int]
) -> list[MultiVector]:
    """Return the answers; `index` of an error is that of the chunk, not of the request's input."""
    try:
        return await request
    except PagevecError as error:
        if is_passing(error):
            raise EmbeddingUnavailableError(error.message) from error
        raise error if error.index is None else error.at(places[error.index]) from error


def _timing(started: float, between: float, images: int, texts: int) -> dict[str, float]:
    ended = time.monotonic()
    return {
        "image_total": between - started,
        "text_total": ended - between,
        "total": ended - started,
        "image_count": float(images),
        "text_count": float(texts),
    }
