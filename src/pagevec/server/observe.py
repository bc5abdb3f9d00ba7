"""Middleware: every request gets an id, times, one log line, a place in the metrics."""

import re
import uuid
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagevec.errors import InternalError
from pagevec.server.errors import error_response
from pagevec.server.metrics import Metrics
from pagevec.server.record import Record

log = structlog.get_logger("pagevec.request")

_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CLIENT_LEFT = 499  # nginx's number for it; it is logged, never sent
_QUIET = frozenset({"/health", "/ready", "/metrics"})


class Observe:
    """Pure ASGI middleware around the routes; what escapes them becomes a 500 with the id."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope["pagevec.record"] = Record(id=_request_id(scope))
        status = CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_headers(record)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except Exception as error:
            log.exception("a fault of ours", id=record.id, path=scope["path"])
            index = error.index if isinstance(error, InternalError) else None
            fault = InternalError(f"a fault of ours; its id in the log is {record.id}", index=index)
            record.code = fault.code
            await error_response(fault)(scope, receive, send_with_headers)
        finally:
            self._metrics.count(record, scope["method"], _route(scope), status)
            _log_line(record, scope, status)


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


def _log_line(record: Record, scope: Scope, status: int) -> None:
    facts: dict[str, Any] = {
        "id": record.id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "code": record.code,
        "key": record.key,
        "input_type": record.input_type,
        "inputs": record.inputs,
        "tokens": record.embedded.tokens if record.embedded else 0,
        "ms": round(record.seconds * 1000, 1),
        **{f"{name}_ms": round(s * 1000, 1) for name, s in record.stages.items()},
    }
    level = log.debug if scope["path"] in _QUIET and status < 400 else log.info
    level("request", **{name: value for name, value in facts.items() if value is not None})
