"""The limits of connections: what each may take, how many there are, and who gives way."""

import asyncio
import math
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from pagevec.errors import PagevecError, TooManyConnections
from pagevec.machine import raise_descriptor_limit

log = structlog.get_logger("pagevec.server")

_MOST = 10_000
_ACCEPTED_AT_ONCE = 16
_MOST_REFUSED = 50  # at the same time; they have descriptors beyond the limit
_ACCEPT_PAUSE = 0.05
_LOG_SECONDS = 10.0  # between two lines about the same thing


@dataclass(frozen=True)
class Deadlines:
    """What a connection may take, in bytes and in time.

    Attributes:
        header_seconds: from the connection, or from the first byte of a later request, to the end
            of the request's header.
        idle_seconds: between two requests. Proxies have to close theirs before that.
        request_seconds: from the end of a header to the end of the answer.
        linger_seconds: that a refused sender has to read why.
        window_seconds: over which a sender's and a reader's rate is averaged.
        bytes_per_second: least rate of either, while this side waits for it.
        max_header_bytes: of one request's header, its first line included.
        max_header_fields: of one request.
    """

    header_seconds: float = 15.0
    idle_seconds: float = 40.0
    request_seconds: float = 1200.0
    linger_seconds: float = 2.0
    window_seconds: float = 20.0
    bytes_per_second: int = 16 * 1024
    max_header_bytes: int = 32 * 1024
    max_header_fields: int = 100

    @property
    def check_seconds(self) -> float:
        """Seconds between two looks at all connections."""
        return min(1.0, self.header_seconds / 4, self.idle_seconds / 4, self.window_seconds / 4)


DEFAULT_DEADLINES = Deadlines()


@dataclass
class Pace:
    """Whether bytes pass fast enough while this side waits for them."""

    deadlines: Deadlines
    total: int
    waited: float = 0.0

    def is_slow(self, seconds: float, total: int) -> bool:
        """Note that this side has waited, and that `total` bytes have passed so far."""
        self.waited += seconds
        if self.waited < self.deadlines.window_seconds:
            return False
        slow = total - self.total < self.deadlines.bytes_per_second * self.waited
        self.waited, self.total = 0.0, total
        return slow


def most_connections() -> int:
    """Raise the limit on file descriptors as far as allowed; return how many may be connections."""
    limit = raise_descriptor_limit()
    # The rest is for the model's files, the threads of libraries, and those just refused.
    spared = max(100, limit // 10) if math.isfinite(limit) else 0
    return max(16, int(min(_MOST, limit - spared)))


class Guarded(Protocol):
    """A connection, as its guard sees it."""

    def refuse(self, error: PagevecError) -> None:
        """Answer `error` and close."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...

    def give_up(self, error: PagevecError) -> None:
        """Answer `error` to the request that is here, if it has no answer yet; then close."""
        ...

    def check(self, now: float, seconds: float) -> None:
        """Keep the deadlines.

        Args:
            now: monotonic time.
            seconds: since the last check.
        """
        ...


@dataclass
class Guard:
    """Keeps the connections of one server within its limits.

    Attributes:
        deadlines: what one connection may take.
        most: how many connections there may be.
        draining: whether the server is shutting down, and refuses new requests.
        closed: whether it refuses connections too.
        silent: those that have not sent a request yet, in the order in which they came.
        idle: those between two requests, in the order in which they began to wait.
    """

    deadlines: Deadlines = DEFAULT_DEADLINES
    most: int = field(default_factory=most_connections)
    draining: bool = False
    closed: bool = False
    silent: dict[Guarded, None] = field(default_factory=dict)
    idle: dict[Guarded, None] = field(default_factory=dict)
    _connections: set[Guarded] = field(default_factory=set)
    _logged: dict[str, float] = field(default_factory=dict)
    _checked: float = field(default_factory=time.monotonic)

    async def accept(
        self, listener: socket.socket, connection: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Accept connections, until cancelled.

        The servers of the event loops take all that is there before they close anything, and lose
        connections without a word when descriptors run out. This one takes a few at a time.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                accepted = [(await loop.sock_accept(listener))[0]]
                with suppress(OSError):  # there are no more, or the next round says why
                    while len(accepted) < _ACCEPTED_AT_ONCE:
                        accepted.append(listener.accept()[0])
            except OSError as error:  # no descriptor is left, or the client is gone already
                self.log("a connection could not be accepted", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            opening = (loop.connect_accepted_socket(connection, one) for one in accepted)
            # Cancelled, uvloop closes the socket and does not tell the connection of it, which
            # may have a request by then, and would count as open for ever.
            await asyncio.shield(asyncio.gather(*opening, return_exceptions=True))

    def admit(self, connection: Guarded) -> None:
        """Take a new connection; if there are too many, one that waits gives way.

        It is the one that waited longest, of those that never sent a request if there are any.
        """
        self._connections.add(connection)
        oldest = next(iter(self.silent), None) or next(iter(self.idle), None)
        self.silent[connection] = None
        if len(self._connections) <= self.most:
            return
        if oldest is not None:
            self.log("a waiting connection was closed for a new one", connections=self.most)
            oldest.abort()
            return
        self.log("a connection was refused: all others are busy", connections=self.most)
        if len(self._connections) > self.most + _MOST_REFUSED:
            connection.abort()  # too many are being told so already
            return
        connection.refuse(
            TooManyConnections(
                f"all {self.most} connections of this service are busy: try again later"
            )
        )

    def forget(self, connection: Guarded) -> None:
        """Count a connection no longer."""
        self._connections.discard(connection)
        self.end_wait(connection)

    def end_wait(self, connection: Guarded) -> None:
        """Note that a connection has a request now, or is about to close."""
        self.silent.pop(connection, None)
        self.idle.pop(connection, None)

    def give_up(self, error: PagevecError) -> None:
        """Answer `error` to all requests that have no answer yet."""
        for connection in list(self._connections):
            connection.give_up(error)

    async def watch(self) -> None:
        """Keep the deadlines, until cancelled."""
        while True:
            await asyncio.sleep(self.deadlines.check_seconds)
            now = time.monotonic()
            # A process that was stopped for a while must not blame its clients for that.
            seconds = min(now - self._checked, 2 * self.deadlines.check_seconds)
            self._checked = now
            for connection in list(self._connections):
                connection.check(now, seconds)
            self.most = most_connections()  # somebody may have changed the limit

    def log(self, event: str, **facts: Any) -> None:
        """Log a warning, unless the same was logged just now."""
        now = time.monotonic()
        if now - self._logged.get(event, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[event] = now
            log.warning(event, **facts)
