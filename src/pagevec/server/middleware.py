"""Middleware around the routes: one record for each request, answers that reach slow senders.

Both are pure ASGI: starlette's `BaseHTTPMiddleware` would hide disconnects.
"""

import asyncio
import contextlib
import re
import uuid
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagevec.errors import InternalError, PagevecError
from pagevec.server.errors import error_response
from pagevec.server.telemetry import Metrics, Record
from pagevec.server.tracing import RequestTrace, Tracing

log = structlog.get_logger("pagevec.request")

_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_CLIENT_LEFT = 499  # nginx's status for it: logged, never sent
_MAX_ADDRESS = 45  # characters of an address of IPv6
# What is asked again and again, by machines and by the page.
_QUIET = "/health", "/ready", "/metrics", "/status", "/static/"

# A client that has not finished sending after this long loses the connection.
_DRAIN_SECONDS = 300.0


class Observe:
    """Gives each request an id, timings, a log line, a place in the metrics and maybe a trace.

    An exception that escapes the routes becomes a 500 that names the id. Without `metrics` nothing
    is counted.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics | None = None, tracing: Tracing | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope["pagevec.record"] = Record(id=_request_id(scope))
        if self._tracing is None or scope["path"].startswith(_QUIET):
            await self._answer(scope, receive, send, record)
            return
        with self._tracing.request(scope, record) as trace:
            await self._answer(scope, receive, send, record, trace)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        record: Record,
        trace: RequestTrace | None = None,
    ) -> None:
        status = _CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])  # of MCP an HTTPStatus, which is logged in words
                message["headers"] = [*message.get("headers", []), *_headers(record)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect as gone:
            status = _CLIENT_LEFT
            record.code = str(gone) or record.code
        except asyncio.CancelledError as gone:
            reason = next(filter(None, gone.args), record.code)
            if not isinstance(reason, PagevecError):
                status, record.code = _CLIENT_LEFT, reason
                raise
            record.code = reason.code
            if status != _CLIENT_LEFT:  # another answer has begun
                raise
            await error_response(reason)(scope, receive, send_with_headers)
        except Exception as error:
            log.exception("internal error", id=record.id, path=scope["path"])
            index = error.index if isinstance(error, InternalError) else None
            fault = InternalError(f"internal error (request id {record.id})", index=index)
            record.code = fault.code
            await error_response(fault)(scope, receive, send_with_headers)
        finally:
            record.resources.close()
            if self._metrics is not None:
                self._metrics.count(record, scope["method"], _route(scope), status)
            if trace is not None:
                trace.finish(scope, _route(scope), status)
            _log_line(record, scope, status, trace.id if trace else None)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex


def _headers(record: Record) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-request-id", record.id.encode()),
        (b"server-timing", record.server_timing().encode()),
    ]


def _route(scope: Scope) -> str:
    # The path of the route, not of the request: strangers must not make up metric labels.
    return getattr(scope.get("route"), "path", "other")


def _log_line(record: Record, scope: Scope, status: int, trace: str | None) -> None:
    fields: dict[str, Any] = {
        "id": record.id,
        "trace": trace,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "code": record.code,
        "client": _client(scope),
        "key": record.key,
        "input_type": record.input_type,
        "inputs": record.inputs,
        "tokens": record.embedded.token_count if record.embedded else 0,
        "ms": round(record.seconds * 1000, 1),
        **{f"{name}_ms": round(s * 1000, 1) for name, s in record.stages.items()},
    }
    level = log.debug if scope["path"].startswith(_QUIET) and status < 400 else log.info
    level("request", **{name: value for name, value in fields.items() if value is not None})


def _client(scope: Scope) -> str | None:
    # uvicorn reads it from X-Forwarded-For where a trusted proxy sent the request, unchecked.
    client = scope.get("client")
    return client[0][:_MAX_ADDRESS] if client else None


class DrainUnreadBody:
    """Lets an answer reach a client that is still sending.

    Closing a connection while unread bytes arrive resets it, and the reset destroys the answer on
    its way: the client would see a broken connection instead of its 413. So the answer is sent at
    once, and what the client still sends is read and discarded before the response ends.
    """

    def __init__(self, app: ASGIApp, patience: float = _DRAIN_SECONDS) -> None:
        self._app = app
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive)

        async def send_then_drain(message: Message) -> None:
            ends = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not ends or body.complete:
                await send(message)
                return
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError, PagevecError):
                async with asyncio.timeout(self._patience):
                    await body.drain()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, body.receive, send_then_drain)


class _Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # the last part, or a disconnect
            self.complete = True
        return message

    async def drain(self) -> None:
        while not self.complete:
            await self.receive()
