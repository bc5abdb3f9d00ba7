"""Connections: HTTP/1.1 within limits on bytes, on time and on how many there are.

The parser is h11, over uvicorn's protocol for it. httptools, the faster one, ends a request at an
`Upgrade` header (every stock JDK client sends one), so that its body is lost and read as a second
request; it bounds neither header fields nor their bytes. h11 reads such a request as what it is,
one of HTTP/1.1. On large bodies both take little beside the model; on small requests the limits
that h11 brings would cost the same in Python on top of httptools.

All deadlines are kept by one timer, which looks at every connection once a second: a timer for each
read would cost more than the reading.
"""

import asyncio
import time
import uuid
from typing import Any
from urllib.parse import unquote

import h11
import structlog
from uvicorn.protocols.http.flow_control import CLOSE_HEADER, HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from pagevec.errors import HeadersTooLarge, InvalidRequest, PagevecError, RequestTimeout
from pagevec.server.errors import error_response
from pagevec.server.exchange import Exchange
from pagevec.server.guard import Guard

log = structlog.get_logger("pagevec.server")

# Parts of a request that are handled in one go: other connections have their turn in between.
_EVENTS_AT_ONCE = 16
_HEAD_PIECE = 4 * 1024
_BODY_PIECE = 64 * 1024


class _Flow(FlowControl):
    """Flow control that reads nothing more while something read is not handled yet."""

    backlog = False

    def resume_reading(self) -> None:
        if not self.backlog:
            super().resume_reading()


class Connection(H11Protocol):
    """One connection: uvicorn's protocol for h11, within the limits of a `Guard`."""

    cycle: "Exchange | None"  # type: ignore[assignment]
    flow: _Flow

    def __init__(self, *arguments: Any, guard: Guard, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guard = guard
        self.deadlines = guard.deadlines
        self._unread = b""
        self._deadline: float | None = None  # of the header, or of what follows a refusal
        self._is_idle = False  # between two requests
        self._is_refused = False
        self.received = 0
        self.written = 0

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if self.client is not None:  # in IPv4, on a socket that listens to both
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self.flow = _Flow(transport)
        self._deadline = time.monotonic() + self.deadlines.header_seconds
        if self._guard.closed:
            transport.close()
        else:
            self._guard.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what is done for the client."""
        self._guard.forget(self)
        self._unread = b""
        super().connection_lost(exc)
        if self.cycle is not None:
            self.cycle.leave()

    def data_received(self, data: bytes) -> None:
        """Read what arrived."""
        self.received += len(data)
        if self._is_refused:
            return
        if self._is_idle:
            self._is_idle = False
            self._deadline = time.monotonic() + self.deadlines.header_seconds
        self._unread = self._unread + data if self._unread else data
        if not self.flow.backlog:
            self.handle_events()

    # Requests

    def handle_events(self) -> None:
        """Handle what was read, or a part of it and the rest soon."""
        if self.transport.is_closing():
            return
        was_behind, self.flow.backlog = self.flow.backlog, False
        for _ in range(_EVENTS_AT_ONCE):
            try:
                event = self.conn.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse_malformed(error)
                return
            if event is h11.PAUSED:  # the next request came before this one was answered
                self.flow.pause_reading()
                return
            if event is not h11.NEED_DATA:
                self._handle(event)
                if self._is_refused:
                    return
            elif self._unread:
                self._feed_parser()
            else:
                if was_behind and (self.cycle is None or len(self.cycle.body) < HIGH_WATER_LIMIT):
                    self.flow.resume_reading()
                return
        self.flow.pause_reading()
        self.flow.backlog = True
        self.loop.call_soon(self.handle_events)

    def _feed_parser(self) -> None:
        size = _HEAD_PIECE if self.conn.their_state is h11.IDLE else _BODY_PIECE
        piece, self._unread = self._unread[:size], self._unread[size:]
        self.conn.receive_data(piece)

    def _handle(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._begin_request(event)
        elif self.conn.our_state is h11.DONE:  # the answer did not wait for the end of the body
            if isinstance(event, h11.EndOfMessage):
                self.flow.resume_reading()
                self.conn.start_next_cycle()
        elif self.cycle is not None and isinstance(event, h11.Data):
            self.cycle.body += event.data
            if len(self.cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            self.cycle.message_event.set()
        elif self.cycle is not None and isinstance(event, h11.EndOfMessage):
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _begin_request(self, event: h11.Request) -> None:
        fault = self._find_fault(event)
        if fault is not None:
            self.refuse(fault)
            return
        self._deadline, self._is_idle = None, False
        self._guard.end_wait(self)
        raw_path, _, query = event.target.partition(b"?")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": event.http_version.decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": event.method.decode("ascii"),
            "root_path": self.root_path,
            "path": self.root_path + unquote(raw_path.decode("ascii")),
            "raw_path": self.root_path.encode("ascii") + raw_path,
            "query_string": query,
            "headers": list(event.headers),
            "state": self.app_state.copy(),
        }
        self.cycle = Exchange(self)
        if self._guard.draining:
            self.scope["pagevec.draining"] = True  # type: ignore[typeddict-unknown-key]
            self.cycle.keep_alive = False
        self.cycle.start(self.app)

    def _find_fault(self, event: h11.Request) -> PagevecError | None:
        limits = self.deadlines
        size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
        if size > limits.max_header_bytes or len(event.headers) > limits.max_header_fields:
            return self._too_large()
        if event.http_version not in (b"1.0", b"1.1"):
            return InvalidRequest("this service speaks HTTP/1.1: send that")
        names = {name for name, _ in event.headers}
        if b"transfer-encoding" in names and b"content-length" in names:
            # Two readers could disagree on where this request ends (RFC 9112, 6.3).
            return InvalidRequest("send Content-Length or Transfer-Encoding, not both")
        return None

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"the header has more than {self.deadlines.max_header_bytes:,} bytes or "
            f"{self.deadlines.max_header_fields} fields: send fewer or shorter ones"
        )

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._deadline = time.monotonic() + self.deadlines.idle_seconds
        self._is_idle = True
        self._guard.idle[self] = None
        self.flow.resume_reading()
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self.conn.start_next_cycle()
            self.handle_events()

    # Refusals and deadlines

    def refuse(self, error: PagevecError) -> None:
        """Answer `error` and close, once the client has had time to read why."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        identity = uuid.uuid4().hex
        response = error_response(error)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"x-request-id", identity.encode()),
            CLOSE_HEADER,
        ]
        for event in (
            h11.Response(
                status_code=error.status, headers=headers, reason=STATUS_PHRASES[error.status]
            ),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._guard.end_wait(self)
        self._is_refused, self._unread = True, b""
        self._deadline = time.monotonic() + self.deadlines.linger_seconds
        # Closing while bytes arrive would reset the connection, and the answer with it.
        self.flow.resume_reading()
        self.transport.write_eof()
        client = self.client and self.client[0]
        log.info("refused", id=identity, status=error.status, code=error.code, client=client)

    def _refuse_malformed(self, error: h11.RemoteProtocolError) -> None:
        reason = str(error).partition(": bytearray")[0]  # without what was sent
        fault: PagevecError = InvalidRequest(f"this is not a request of HTTP/1.1: {reason}")
        if error.error_status_hint == HeadersTooLarge.status:
            fault = self._too_large()
        if self.cycle is None or self.cycle.response_complete:
            self.refuse(fault)
        else:
            self.cycle.fail(fault)
            self._is_refused = True  # nothing that follows can be read

    def give_up(self, error: PagevecError) -> None:
        """Answer `error` to the request that is here, if it has no answer yet; then close."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.fail(error)

    def abort(self) -> None:
        """Close at once."""
        self._guard.end_wait(self)
        self._unread = b""
        self.transport.abort()

    def check(self, now: float, seconds: float) -> None:
        """Keep the deadlines.

        Args:
            now: monotonic time.
            seconds: since the last check.
        """
        if self._deadline is not None and now > self._deadline:
            self._expire()
        elif self.transport.is_closing():
            self._check_closing(seconds)
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.check(now, seconds)

    def _check_closing(self, seconds: float) -> None:
        if self.cycle is None or self.cycle.reads_too_slowly(seconds):
            self.transport.abort()

    def _expire(self) -> None:
        has_begun = bool(self.received) and not self._is_idle
        if not self._is_refused and has_begun:
            self.refuse(
                RequestTimeout(
                    "the header of the request did not end within "
                    f"{self.deadlines.header_seconds:g} s: send it in one piece"
                )
            )
        elif self.transport.get_write_buffer_size():
            self.abort()  # a close would wait for a reader who does not read
        else:
            self._guard.end_wait(self)
            self.transport.close()

    def shutdown(self) -> None:
        """Close, after the answer to the request that is here."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.abort() if self._is_refused else self.transport.close()
