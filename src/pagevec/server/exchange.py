"""A request on a connection, and its answer: one exchange, for the application that answers."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from pagevec.errors import PagevecError, RequestTimeout
from pagevec.server.guard import Pace

if TYPE_CHECKING:
    from pagevec.server.connections import Connection

_SEND_PIECE = 256 * 1024


class Exchange(RequestResponseCycle):
    """A request and its answer; uvicorn's cycle, within the deadlines of its connection."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__(
            scope=connection.scope,
            conn=connection.conn,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=connection.on_response_complete,
        )
        self._connection = connection
        self._deadlines = connection.deadlines
        self._ends = time.monotonic() + self._deadlines.request_seconds
        self._sending = Pace(self._deadlines, connection.received)
        self._reading = Pace(self._deadlines, connection.written)
        self._is_receiving = False
        self._fault: PagevecError | None = None
        self._failed = False
        self._task: asyncio.Task[None] | None = None

    def start(self, app: ASGI3Application) -> None:
        """Let `app` answer."""

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except (asyncio.CancelledError, ClientDisconnect):
                if not self.disconnected:
                    raise

        tasks = self._connection.tasks
        self._task = self._connection.loop.create_task(self.run_asgi(answer))
        self._task.add_done_callback(tasks.discard)
        tasks.add(self._task)

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next part of the body.

        Raises:
            PagevecError: why there is none, once.
        """
        if self._failed:
            return {"type": "http.disconnect"}
        self._is_receiving = True
        try:
            message = await super().receive()
        finally:
            self._is_receiving = False
        if self._fault is not None:
            self._failed = True
            raise self._fault
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the answer, once the client has read most of what was sent before.

        Raises:
            ClientDisconnect: the client is gone.
        """
        if message["type"] == "http.response.start":
            if not self.keep_alive and CLOSE_HEADER not in message.get("headers", []):
                message["headers"] = [*message.get("headers", []), CLOSE_HEADER]
            await super().send(message)
            return
        assert message["type"] == "http.response.body"  # noqa: S101 - for the type checker
        body = memoryview(message.get("body", b""))
        more = message.get("more_body", False)
        while len(body) > _SEND_PIECE:
            await self._send(bytes(body[:_SEND_PIECE]), True)
            body = body[_SEND_PIECE:]
        await self._send(bytes(body), more)

    async def _send(self, body: bytes, more: bool) -> None:
        self._connection.written += len(body)
        await super().send({"type": "http.response.body", "body": body, "more_body": more})
        if self.disconnected and not self.response_complete:
            raise ClientDisconnect

    def fail(self, error: PagevecError) -> None:
        """Let the next `receive` raise `error`; the connection ends with this request."""
        self._fault, self.keep_alive = error, False
        self.message_event.set()

    def leave(self, code: str = "") -> None:
        """Stop working for a client that is gone."""
        if self._task is not None and not self.response_complete:
            self.disconnected = True
            self._task.cancel(code)

    def check(self, now: float, seconds: float) -> None:
        """Keep the deadlines; see `Connection.check`."""
        if self.reads_too_slowly(seconds):
            self.leave("slow_reader")
            self._connection.abort()
        elif self._is_receiving and self.more_body and self._fault is None:
            rate = self._deadlines.bytes_per_second
            if self._sending.is_slow(seconds, self._connection.received):
                self.fail(
                    RequestTimeout(
                        f"the body came with less than {rate:,} bytes a second: send it faster"
                    )
                )
        elif now > self._ends:
            self.leave("request_timeout")
            self._connection.abort()

    def reads_too_slowly(self, seconds: float) -> bool:
        """Note that the client had `seconds` to read; return whether it read too little."""
        unread = self.transport.get_write_buffer_size()
        if not unread:
            return False
        return self._reading.is_slow(seconds, self._connection.written - unread)
