"""The endpoints: a request is checked, parsed, embedded and encoded."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from pagevec import __version__
from pagevec.engine.api import Embedder
from pagevec.errors import (
    Draining,
    EngineFailed,
    PagevecError,
)
from pagevec.server.bodies import Call, CallReader, receive_body
from pagevec.server.budget import Hold, Rooms
from pagevec.server.errors import error_response
from pagevec.server.gate import Gate, hold_answer, unless_gone
from pagevec.server.home import home_response
from pagevec.server.telemetry import Metrics, get_record, is_draining
from pagevec.settings import Settings
from pagevec.types import DocumentsAre, Limits, ModelInfo
from pagevec.wire.encode import bytes_of_vector, encode_pieces
from pagevec.wire.negotiation import MEDIA_TYPES, WireFormat, choose_format
from pagevec.wire.receipt import REQUEST_HEADER, receipt_headers

_THREADS = 4
# What is no larger is read, or encoded, without a thread, which would take longer.
_READ_AT_ONCE = 64 * 1024
_ENCODED_AT_ONCE = 256 * 1024
_SEND_BYTES = 64 * 1024

_Result = TypeVar("_Result")


class PiecewiseResponse(Response):
    """An answer in pieces of known length, which are never joined."""

    def __init__(self, pieces: list[bytes], media_type: str, headers: dict[str, str]) -> None:
        self._pieces = pieces
        super().__init__(headers=headers, media_type=media_type)
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        *first, last = join_small(self._pieces)
        for piece in first:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": last})


def join_small(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield the bytes of `pieces` in order, in pieces that are worth the call."""
    some: list[bytes] = []
    for piece in pieces:
        some.append(piece)
        if sum(map(len, some)) >= _SEND_BYTES:
            yield b"".join(some)
            some = []
    yield b"".join(some)


class Routes:
    """The endpoints over one embedder."""

    def __init__(
        self,
        settings: Settings,
        embedder: Embedder,
        metrics: Metrics,
        gate: Gate,
        rooms: Rooms,
        documents: DocumentsAre = None,
    ) -> None:
        self._gate = gate
        self._documents: DocumentsAre = documents
        self._settings = settings
        self._embedder = embedder
        self._metrics = metrics
        self._calls = CallReader(settings)
        self._rooms = rooms
        # Threads of the service's own: others must not take all of them.
        self._threads = ThreadPoolExecutor(_THREADS, "pagevec-server")

    async def embeddings(self, request: Request) -> Response:
        """Embed texts or page images, in the configured format unless Accept says otherwise."""
        return await self._embed(request, self._settings.default_format)

    async def json_embeddings(self, request: Request) -> Response:
        """Embed texts or page images; JSON unless Accept says otherwise."""
        return await self._embed(request, "json")

    async def npz_embeddings(self, request: Request) -> Response:
        """Embed texts or page images; npz unless Accept says otherwise."""
        return await self._embed(request, "npz")

    async def home(self, request: Request) -> Response:
        """Say what is at this address: a page for browsers, else JSON."""
        try:
            model: ModelInfo | str = self._embedder.info()
        except PagevecError as error:
            model = error.message  # it is not ready yet
        return home_response(request.headers.get("accept"), model, self._documents is not None)

    async def health(self, request: Request) -> Response:
        """Answer 200 while the process is alive, and 503 when its model has failed for good."""
        if self._embedder.health().state == "failed":
            return error_response(_failed())
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Answer 200 when the model is ready, else 503."""
        state = "draining" if is_draining(request) else self._embedder.health().state
        if state == "ready":
            return JSONResponse({"status": "ready"})
        if state == "failed":
            return error_response(_failed())
        if state == "draining":
            return error_response(Draining("not ready: draining", retry_after=5))
        self._embedder.info()  # says what it is waiting for
        return JSONResponse({"status": "ready"})

    async def info(self, request: Request) -> Response:
        """Describe the model and the limits of a request."""
        limits = {one.name: getattr(self._settings, one.name) for one in fields(Limits)}
        info = replace(
            self._embedder.info(),
            version=__version__,
            default_format=self._settings.default_format,
            limits=Limits(**limits),
            documents=self._documents,
        )
        return JSONResponse(asdict(info))

    async def metrics(self, request: Request) -> Response:
        """Return Prometheus metrics."""
        return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def _embed(self, request: Request, default: WireFormat) -> Response:
        record, headers = get_record(request), request.headers
        key = await self._gate.admit(request)
        info = self._embedder.info()  # which fails before the body is read
        format_ = choose_format(",".join(headers.getlist("accept")), default)
        body_room = record.resources.enter_context(self._rooms.bodies.hold(key))
        call = await self._receive(request, body_room)
        asked = call.request
        record.input_type, record.inputs = asked.input_type, call.inputs
        vector_bytes = bytes_of_vector(info.dim, asked.dtype, format_, asked.tokens)
        kept = 4 * info.dim + vector_bytes  # as it is made, and as it travels
        room = await hold_answer(request, self._rooms, key, kept * call.count_vectors(info))
        embedding = call.submit(self._embedder, key, vector_bytes)
        del call
        embedded = await unless_gone(asyncio.wrap_future(embedding), request.receive)
        body_room.settle(0)
        room.settle(kept * sum(map(len, embedded.vectors)))
        record.add_embedded(embedded)
        with record.stage("encode"):
            tokens = embedded.tokens if asked.tokens else None
            pieces = await self._in_thread_if(
                room.bytes > _ENCODED_AT_ONCE,
                encode_pieces,
                embedded.vectors,
                asked.input_type,
                asked.dtype,
                format_,
                tokens,
            )
        room.settle(sum(map(len, pieces)))
        receipt = receipt_headers(
            headers.get(REQUEST_HEADER), asked.input_type, len(embedded.vectors)
        )
        return PiecewiseResponse(pieces, MEDIA_TYPES[format_], receipt)

    async def _receive(self, request: Request, room: Hold) -> Call:
        record, settings = get_record(request), self._settings
        reader = self._calls.open()
        with record.stage("receive"):
            await receive_body(
                request.receive,
                request.headers,
                reader,
                room,
                settings.max_body_bytes,
                self._rooms.patience,
            )
        with record.stage("decode"):
            call = await self._in_thread_if(room.bytes > _READ_AT_ONCE, self._calls.finish, reader)
        room.settle(call.bytes)
        return call

    async def _in_thread_if(
        self, is_long: bool, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        if not is_long:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


def _failed() -> EngineFailed:
    return EngineFailed("the model failed for good: this process has to be started again")
