"""MCP over streamable HTTP: for callers with a key, at addresses that are this server's own.

Each call is a request with one answer in JSON; there are no sessions, and nothing is streamed. The
connections, their limits and their end are those of the service.
"""

import socket
from collections.abc import Sequence
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from pagevec.errors import ConfigurationError, MethodNotAllowed, NotFound, PagevecError
from pagevec.server.errors import error_response
from pagevec.server.gate import Gate
from pagevec.server.middleware import DrainUnreadBody, Observe
from pagevec.server.run import run, server_for
from pagevec.server.telemetry import get_record
from pagevec.settings import Settings

PATH = "/mcp"
_MOST_BODY = 256 * 1024  # bytes of a request


def require_keys(settings: Settings) -> None:
    """Make sure that there is a key to ask callers for.

    Raises:
        ConfigurationError: there is none, or none that can be used.
    """
    if not settings.keys:
        raise ConfigurationError(
            "SERVICE_API_KEY is not set, and without a key nobody is answered over HTTP: set one "
            "(several with commas; or SERVICE_API_KEY_FILE)"
        )


def serve_http(
    server: Server[Any], settings: Settings, listener: socket.socket, names: Sequence[str]
) -> None:
    """Serve until a signal comes and all calls are answered.

    Args:
        server: answers.
        settings: with the keys.
        listener: where to accept connections.
        names: besides loopback, what callers may call this server (`Host`).
    """
    port = listener.getsockname()[1]
    hosts = [*(f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")), *names]
    run(server_for(make_app(server, settings, hosts), settings), listener)


def make_app(server: Server[Any], settings: Settings, hosts: Sequence[str]) -> ASGIApp:
    """Return the ASGI application.

    Args:
        server: answers.
        settings: with the keys.
        hosts: what callers may call it: values of `Host`. A page may ask whose origin is one.
    """
    require_keys(settings)
    origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=_MOST_BODY,
        transport_security=TransportSecuritySettings(
            allowed_hosts=list(hosts), allowed_origins=origins
        ),
    )
    app.add_middleware(_Admit, gate=Gate(settings))
    app.add_middleware(Observe)
    app.add_middleware(DrainUnreadBody)
    return app


class _Admit:
    """Lets calls in: at the one path, by their key, within its rate."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            try:
                await self._admit(request)
            except PagevecError as error:
                get_record(request).code = error.code
                response = error_response(error)
                if isinstance(error, MethodNotAllowed):
                    response.headers["Allow"] = "POST"
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, request: Request) -> None:
        await self._gate.admit(request)
        path, method = request.url.path, request.method
        if path != PATH:
            raise NotFound(f"there is nothing at {path}; agents are answered at {PATH}")
        if method != "POST":
            raise MethodNotAllowed(f"{PATH} does not accept {method}: nothing is streamed here")
