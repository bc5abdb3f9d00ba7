"""The endpoints, each a few sentences."""

import asyncio
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

from pagevec import __version__
from pagevec.engine.api import Embedded, Embedder
from pagevec.errors import Draining, NotReady
from pagevec.server.auth import Keys
from pagevec.server.calls import CallReader
from pagevec.server.errors import error_response
from pagevec.server.limits import RateLimits, read_body
from pagevec.server.metrics import Metrics
from pagevec.server.record import record_of
from pagevec.settings import Settings
from pagevec.wire.encode import encode
from pagevec.wire.negotiation import MEDIA_TYPES, Format, choose_format


class Routes:
    """The endpoints over one embedder."""

    def __init__(self, settings: Settings, embedder: Embedder, metrics: Metrics) -> None:
        self._settings = settings
        self._embedder = embedder
        self._metrics = metrics
        self._keys = Keys(settings)
        self._rates = RateLimits(settings.rate_limit, settings.rate_limit_storage)
        self._calls = CallReader.of(settings)

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
        """Say that the process lives."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Say whether the model answers: 200, else 503."""
        health = self._embedder.health()
        if health.state == "ready":
            return JSONResponse({"status": "ready"})
        known = Draining if health.state == "draining" else NotReady
        return error_response(known(f"not ready: {health.state}", retry_after=5))

    async def info(self, request: Request) -> Response:
        """Say which model answers, and the limits."""
        limits = (
            "max_body_bytes",
            "max_inputs",
            "max_text_chars",
            "max_image_bytes",
            "max_image_pixels",
            "max_image_side",
            "request_seconds",
            "rate_limit",
        )
        content: dict[str, Any] = {
            "version": __version__,
            **asdict(self._embedder.info),
            "default_format": self._settings.default_format,
            "limits": {name: getattr(self._settings, name) for name in limits},
        }
        return JSONResponse(content)

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics."""
        return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def _embed(self, request: Request, default: Format) -> Response:
        record, headers = record_of(request), request.headers
        record.key = self._keys.check(headers.get("authorization"))
        await self._rates.check(record.key)
        _ = self._embedder.info  # not ready: say so before the body is read
        with record.stage("receive"):
            body = await read_body(
                request.receive, headers.get("content-length"), self._settings.max_body_bytes
            )
        with record.stage("decode"):
            call = await run_in_threadpool(self._calls.read, body)
        record.input_type, record.inputs = call.request.input_type, len(call.inputs)
        embedding = self._embedder.embed(call.inputs, call.request.pool_factor)
        embedded = await _result_unless_gone(embedding, request.receive)
        record.add_embedded(embedded)
        format_ = choose_format(",".join(headers.getlist("accept")), default)
        with record.stage("encode"):
            content = await run_in_threadpool(
                encode, embedded.vectors, call.request.input_type, call.request.dtype, format_
            )
        return Response(content, media_type=MEDIA_TYPES[format_])


async def _result_unless_gone(embedding: Future[Embedded], receive: Receive) -> Embedded:
    """Wait for the engine; a caller who leaves takes the work out of the queue.

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
