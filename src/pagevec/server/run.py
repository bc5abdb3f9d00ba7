"""The process that serves: its log, a socket, uvicorn, a clean end."""

import asyncio
import logging
import signal
import socket
import sys
import time
import warnings
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp

from pagevec.errors import ConfigurationError, Draining
from pagevec.probe import local_url
from pagevec.secrets import mask_secrets
from pagevec.server.connections import Connection
from pagevec.server.guard import DEFAULT_DEADLINES, Deadlines, Guard
from pagevec.settings import Settings
from pagevec.terminal import show_on_one_line, show_traceback

log = logging.getLogger(__name__)

_LAST_SECONDS = 1.0
"""In which requests are answered that ask for more of their body, or wait for its end."""

_LOG_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure_logs(settings: Settings) -> None:
    """Send the log lines of pagevec and uvicorn to standard error, as JSON or for a terminal.

    Both show no secrets, and no character that a terminal would obey.
    """
    renderers: list[structlog.typing.Processor] = (
        [_mask_secrets, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            _mask_secrets,
            _quote_controls,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_LOG_PROCESSORS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("pagevec", "uvicorn"):
        logging.getLogger(name).setLevel(settings.log_level.upper())
    # Damaged files are the callers' business: the answer says what is wrong.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_LOG_PROCESSORS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _mask_secrets(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        name: mask_secrets(value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _quote_controls(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """JSON escapes control characters itself; a line for a terminal must not have any."""
    return {
        show_on_one_line(name): value
        if not isinstance(value, str)
        else show_traceback(value)
        if name in ("exception", "stack")
        else show_on_one_line(value)
        for name, value in event.items()
    }


def listen(settings: Settings) -> socket.socket:
    """Return a bound socket; on `::`, one for IPv4 too, where the system can.

    Raises:
        ConfigurationError: the address is taken, or is not an address of this machine.
    """
    both = settings.host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server(
            (settings.host, settings.port), family=family, backlog=2048, dualstack_ipv6=both
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another --host or --port (PAGEVEC_HOST, PAGEVEC_PORT)"
        ) from None


def address_of(listener: socket.socket) -> str:
    """Return the address that clients on this machine use."""
    host, port = listener.getsockname()[:2]
    return local_url(host, port)


class Server(uvicorn.Server):
    """uvicorn's server, with connections of our own and a shutdown that tells callers of it."""

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self._guard = guard
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on `sockets`, and keep their deadlines from now on."""
        await self.lifespan.startup()
        self.servers = []
        accepting = [self._guard.accept(one, self._connection) for one in sockets or []]
        self._tasks = [asyncio.create_task(one) for one in (*accepting, self._guard.watch())]
        self.started = True

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state, guard=self._guard)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is in flight, and new requests with a 503 meanwhile; then close.

        What is not done in time is answered with a 503, too.
        """
        self._guard.draining = True
        seconds = float(self.config.timeout_graceful_shutdown or 0)
        end = time.monotonic() + seconds
        in_flight = set(self.server_state.tasks)
        log.info("shutting down: %d requests are in flight", len(in_flight))
        while in_flight and not self.force_exit and time.monotonic() < end:
            _, in_flight = await asyncio.wait(in_flight, timeout=0.1)
        late = Draining(
            "this service ended before it had the answer: ask again, or ask another one"
        )
        self._guard.give_up(late)
        if in_flight:  # an application that does not ask for more of its request hears of it now
            _, in_flight = await asyncio.wait(in_flight, timeout=_LAST_SECONDS)
        for task in in_flight:
            task.cancel(late)
        # What is left to do is to close connections, which takes a moment. Forced, uvicorn would
        # not tell the application of its end.
        left = 0.0 if self.force_exit else end - time.monotonic()
        self.force_exit = False
        self.config.timeout_graceful_shutdown = max(1, round(left))
        *accepting, watch = self._tasks
        self._guard.closed = True
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        await super().shutdown(sockets)
        watch.cancel()


def server_for(
    app: ASGIApp, settings: Settings, deadlines: Deadlines = DEFAULT_DEADLINES
) -> uvicorn.Server:
    """Return a server that, at SIGTERM, takes nothing new and finishes what is in flight.

    Args:
        app: the application.
        settings: of the service.
        deadlines: what a connection may take.
    """
    guard = Guard(deadlines)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        http=Connection,
        ws="none",
        h11_max_incomplete_event_size=deadlines.max_header_bytes,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    return Server(config, guard)


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until a signal comes and all requests are done."""

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        # For signals before uvicorn listens to them, and for the one that it has listened to: it
        # raises that again when it is done, which would end the process by signal.
        signal.signal(number, end)
    server.run(sockets=[listener])
