"""Request bodies: received within the budget of held bytes, decompressed, read as they arrive."""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from pagevec.engine.api import Embedded, Embedder
from pagevec.errors import BodyTooLarge, InvalidRequest, PagevecError, UnsupportedEncoding
from pagevec.grid import PageResizing
from pagevec.images import EncodedImage, read_image
from pagevec.images.base64 import Base64Reader
from pagevec.limits import ImageLimits
from pagevec.server.budget import Hold
from pagevec.settings import Settings
from pagevec.types import ModelInfo
from pagevec.wire.body import BodyReader
from pagevec.wire.schema import EmbeddingsRequest
from pagevec.wire.strings import BodyLimits

# So much is read in one go; other requests have their turn in between.
_PIECE_BYTES = 128 * 1024
# A body of unknown length takes room in steps: the more it has, the longer ones.
_STEP_BYTES = 16 * 1024 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_COMPRESSIONS = ("gzip", "x-gzip", "deflate")


_TOKENS_AROUND = 64  # prompt and augmentation tokens, at most
_MOST_VISUAL = 4096  # of a page, in families whose visual tokens are not cells of one grid


@dataclass(frozen=True, eq=False)
class Call:
    """A valid request.

    Attributes:
        request: its fields.
        texts: its inputs, where they are texts.
        images: its inputs, with their headers read, where they are images.
    """

    request: EmbeddingsRequest
    texts: list[str]
    images: list[EncodedImage]

    @property
    def inputs(self) -> int:
        """How many inputs it has."""
        return len(self.texts) + len(self.images)

    @property
    def bytes(self) -> int:
        """Bytes of its inputs, as they are kept."""
        return sum(map(sys.getsizeof, self.texts)) + sum(len(one.data) for one in self.images)

    def count_vectors(self, info: ModelInfo) -> int:
        """Return how many vectors the answer has at most."""
        texts = sum(len(text.encode()) + _TOKENS_AROUND for text in self.texts)
        return texts + sum(_count_visual(one, info.resizing) for one in self.images)

    def submit(self, embedder: Embedder, caller: str, vector_bytes: int) -> Future[Embedded]:
        """Hand the inputs to `embedder`.

        Raises:
            InvalidRequest: tokens are asked for, and the model does not tell them.
        """
        request = self.request
        asker: Any = {"caller": caller, "vector_bytes": vector_bytes}
        if request.input_type == "image":
            return embedder.embed_images(self.images, request.pool_factor, **asker)
        if request.tokens and not embedder.info().tells_tokens:
            raise InvalidRequest("tokens: this model does not tell its tokens; ask without them")
        return embedder.embed_texts(self.texts, request.pool_factor, tokens=request.tokens, **asker)


def _count_visual(image: EncodedImage, resizing: PageResizing | None) -> int:
    if resizing is None:
        return _MOST_VISUAL
    return resizing.grid(image.width, image.height).cells + resizing.first + _TOKENS_AROUND


def body_limits(settings: Settings) -> BodyLimits:
    """Return what a body may hold."""
    return BodyLimits(
        settings.max_inputs, settings.max_text_chars, lambda: Base64Reader(settings.image_limits)
    )


def read_input_image(
    index: int, file: str | bytes | PagevecError, limits: ImageLimits
) -> EncodedImage:
    """Return an image whose header was read; an error blames the input at `index`."""
    try:
        return read_image(_faultless(file, bytes), limits)
    except PagevecError as error:
        raise error.at(index) from None


class CallReader:
    """Reads bodies within the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._image_limits = settings.image_limits
        self._limits = body_limits(settings)

    def open(self) -> BodyReader:
        """Begin to read a body."""
        return BodyReader(self._limits)

    def finish(self, reader: BodyReader) -> Call:
        """Return what `reader` has read.

        Raises:
            InvalidJSON, InvalidRequest, TextTooLong, InvalidImage, ImageTooLarge.
        """
        body = reader.finish()
        if body.request.input_type == "text":
            return Call(body.request, [_faultless(one, str) for one in body.inputs], [])
        return Call(body.request, [], [self._image(*one) for one in enumerate(body.inputs)])

    def _image(self, index: int, file: str | bytes | PagevecError) -> EncodedImage:
        return read_input_image(index, file, self._image_limits)


class Reader(Protocol):
    """Takes a body as it arrives."""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""


_Input = TypeVar("_Input", str, bytes)


def _faultless(read: str | bytes | PagevecError, kind: type[_Input]) -> _Input:
    if isinstance(read, PagevecError):
        raise read
    assert isinstance(read, kind)  # noqa: S101 - for the type checker
    return read


async def receive_body(
    receive: Receive,
    headers: Mapping[str, str],
    reader: Reader,
    hold: Hold,
    limit: int,
    patience: float,
) -> None:
    """Receive a body into `reader`.

    Args:
        receive: the ASGI callable.
        headers: of the request.
        reader: reads the body while it arrives.
        hold: what this request holds; it grows before bytes are read.
        limit: bytes that a body may have, decompressed.
        patience: seconds to wait for room.

    Raises:
        UnsupportedEncoding: the body is compressed in a way that is not read here.
        BodyTooLarge: the body is over `limit`, by its header or as it arrives.
        QueueFull: there was no room for it in time.
        ClientDisconnect: the caller left.
        PagevecError: what `reader` raises.
    """
    compressed = _is_compressed(headers.get("content-encoding", ""))
    length = _length(headers)
    if length is not None and length > limit:
        raise _too_large(f"{length:,} bytes", limit)
    if length is not None and not compressed:
        await hold.grow(length, patience)
    pieces = received(receive)
    size = 0
    async for piece in _decompressed(pieces) if compressed else pieces:
        size += len(piece)
        if size > limit:
            raise _too_large("longer", limit)
        if size > hold.bytes:
            step = max(size - hold.bytes, min(hold.bytes, _STEP_BYTES, limit - hold.bytes))
            await hold.grow(step, patience)
        reader.feed(piece)


def _is_compressed(encoding: str) -> bool:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding not in _COMPRESSIONS:
        raise UnsupportedEncoding(
            f"the Content-Encoding {encoding[:40]!r} is not read here: send the body as it is, "
            "or with gzip or deflate"
        )
    return True


def _length(headers: Mapping[str, str]) -> int | None:
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


async def received(receive: Receive) -> AsyncIterator[bytes]:
    """Yield a body as it arrives, in pieces of bounded size.

    Raises:
        ClientDisconnect: the caller left.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body, more = message.get("body", b""), message.get("more_body", False)
        for start in range(0, len(body), _PIECE_BYTES):
            if start:
                await asyncio.sleep(0)
            yield body[start : start + _PIECE_BYTES] if len(body) > _PIECE_BYTES else body


async def _decompressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    stream: _Stream | None = None
    async for piece in pieces:
        stream = stream or _Stream(piece[:1])
        for part in stream.feed(piece):
            yield part
            await asyncio.sleep(0)  # a small piece can become a thousand times as much
    if stream is not None and not stream.ended:
        raise InvalidRequest("the compressed body ends too early: send all of it")


class _Stream:
    """A compressed stream, decompressed in pieces of bounded size."""

    def __init__(self, first: bytes) -> None:
        # `deflate` is zlib's format, but some send it bare, without zlib's first byte.
        bare = first not in (b"\x1f", b"\x78")
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS if bare else _GZIP_OR_ZLIB)

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream.eof:
                raise InvalidRequest("the compressed body goes on after its end: send one stream")
            try:
                part = self._stream.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise InvalidRequest(
                    "the body is not what its Content-Encoding says: send it as it is, or with "
                    "gzip or deflate"
                ) from None
            data = self._stream.unconsumed_tail or self._stream.unused_data
            if part:
                yield part


def _too_large(size: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is {size}, the limit is {limit:,} bytes: send fewer inputs")
