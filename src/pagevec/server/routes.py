"""The endpoints: a request is checked, parsed, embedded and encoded."""

import asyncio
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

from pagevec import __version__
from pagevec.engine.api import Embedded, Embedder
from pagevec.errors import (
    Draining,
    InvalidRequest,
    NotReady,
    PagevecError,
    TextTooLong,
    TooManyInputs,
)
from pagevec.images import EncodedImage, read_base64_image
from pagevec.server.errors import error_response
from pagevec.server.security import Keys, RateLimits, read_body
from pagevec.server.telemetry import Metrics, get_record
from pagevec.settings import Settings
from pagevec.types import Limits
from pagevec.wire.encode import encode
from pagevec.wire.negotiation import MEDIA_TYPES, WireFormat, choose_format
from pagevec.wire.receipt import REQUEST_HEADER, receipt_headers
from pagevec.wire.schema import EmbeddingsRequest, parse_request


@dataclass(frozen=True, eq=False)
class Call:
    """A valid request.

    Attributes:
        request: its fields.
        images: its inputs, with their headers read, where they are images.
    """

    request: EmbeddingsRequest
    images: list[EncodedImage]

    def submit(self, embedder: Embedder) -> Future[Embedded]:
        """Hand the inputs to `embedder`.

        Raises:
            InvalidRequest: tokens are asked for, and the model does not tell them.
        """
        request = self.request
        if request.input_type == "image":
            return embedder.embed_images(self.images, request.pool_factor)
        if request.tokens and not embedder.info().tells_tokens:
            raise InvalidRequest("tokens: this model does not tell its tokens; ask without them")
        return embedder.embed_texts(request.inputs, request.pool_factor, tokens=request.tokens)


class CallReader:
    """Reads bodies within the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._max_inputs = settings.max_inputs
        self._max_text_chars = settings.max_text_chars
        self._image_limits = settings.image_limits

    def read(self, body: bytearray) -> Call:
        """Read `body`, which is emptied.

        Raises:
            InvalidJSON, InvalidRequest, TooManyInputs, TextTooLong, InvalidImage, ImageTooLarge.
        """
        request = parse_request(body)
        body.clear()  # the inputs are copies: free a large body before they are decoded
        if len(request.inputs) > self._max_inputs:
            raise TooManyInputs(
                f"{len(request.inputs)} inputs, the limit is {self._max_inputs}: send fewer"
            )
        if request.input_type == "text":
            self._check_texts(request.inputs)
            return Call(request, [])
        return Call(request, [self._image(i, text) for i, text in enumerate(request.inputs)])

    def _check_texts(self, texts: list[str]) -> None:
        for index, text in enumerate(texts):
            if len(text) > self._max_text_chars:
                raise TextTooLong(
                    f"the text has {len(text)} characters, the limit is {self._max_text_chars}: "
                    "split it",
                    index=index,
                )

    def _image(self, index: int, text: str) -> EncodedImage:
        try:
            return read_base64_image(text, self._image_limits)
        except PagevecError as error:
            raise error.at(index) from None


class Routes:
    """The endpoints over one embedder."""

    def __init__(self, settings: Settings, embedder: Embedder, metrics: Metrics) -> None:
        self._settings = settings
        self._embedder = embedder
        self._metrics = metrics
        self._keys = Keys(settings)
        self._rates = RateLimits(settings)
        self._calls = CallReader(settings)

    async def embeddings(self, request: Request) -> Response:
        """Embed texts or page images, in the configured format unless Accept says otherwise."""
        return await self._embed(request, self._settings.default_format)

    async def json_embeddings(self, request: Request) -> Response:
        """Embed texts or page images; JSON unless Accept says otherwise."""
        return await self._embed(request, "json")

    async def npz_embeddings(self, request: Request) -> Response:
        """Embed texts or page images; npz unless Accept says otherwise."""
        return await self._embed(request, "npz")

    async def health(self, request: Request) -> Response:
        """Answer 200 while the process is alive."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Answer 200 when the model is ready, else 503."""
        health = self._embedder.health()
        if health.state == "ready":
            return JSONResponse({"status": "ready"})
        known = Draining if health.state == "draining" else NotReady
        return error_response(known(f"not ready: {health.state}", retry_after=5))

    async def info(self, request: Request) -> Response:
        """Describe the model and the limits of a request."""
        limits = {one.name: getattr(self._settings, one.name) for one in fields(Limits)}
        info = replace(
            self._embedder.info(),
            version=__version__,
            default_format=self._settings.default_format,
            limits=Limits(**limits),
        )
        return JSONResponse(asdict(info))

    async def metrics(self, request: Request) -> Response:
        """Return Prometheus metrics."""
        return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def _embed(self, request: Request, default: WireFormat) -> Response:
        record, headers = get_record(request), request.headers
        record.key = self._keys.check(headers.get("authorization"))
        await self._rates.check(record.key)
        self._embedder.info()  # raises NotReady before the body is read
        with record.stage("receive"):
            body = await read_body(
                request.receive, headers.get("content-length"), self._settings.max_body_bytes
            )
        with record.stage("decode"):
            call = await run_in_threadpool(self._calls.read, body)
        asked = call.request
        record.input_type, record.inputs = asked.input_type, len(asked.inputs)
        embedded = await _result_unless_gone(call.submit(self._embedder), request.receive)
        record.add_embedded(embedded)
        format_ = choose_format(",".join(headers.getlist("accept")), default)
        with record.stage("encode"):
            tokens = embedded.tokens if asked.tokens else None
            content = await run_in_threadpool(
                encode, embedded.vectors, asked.input_type, asked.dtype, format_, tokens
            )
        token, count = headers.get(REQUEST_HEADER), len(embedded.vectors)
        receipt = receipt_headers(token, asked.input_type, count)
        return Response(content, headers=receipt, media_type=MEDIA_TYPES[format_])


async def _result_unless_gone(embedding: Future[Embedded], receive: Receive) -> Embedded:
    """Wait for the engine; if the caller leaves, its work leaves the queue.

    Raises:
        ClientDisconnect: the caller left.
    """
    result = asyncio.ensure_future(asyncio.wrap_future(embedding))
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        either: set[asyncio.Future[Any]] = {result, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise ClientDisconnect
    finally:
        result.cancel()
        gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
