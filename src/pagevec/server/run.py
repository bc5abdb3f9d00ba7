"""The process that serves: a socket, uvicorn, a clean end."""

import ipaddress
import secrets
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

# morphik-core opens a connection for each call; other clients may keep theirs.
_KEEP_ALIVE_SECONDS = 75


def with_key(settings: Settings) -> tuple[Settings, bool]:
    """Return settings with a key, and whether it was made just now, which only loopback allows.

    Raises:
        ConfigurationError: there is none, and the service would be open to other hosts.
    """
    if settings.keys:
        return settings, False
    if not is_loopback(settings.host):
        raise ConfigurationError(
            f"SERVICE_API_KEY is not set, and {settings.host} is not loopback: "
            "set a key (several with commas; or SERVICE_API_KEY_FILE), or PAGEVEC_HOST=127.0.0.1"
        )
    made = SecretStr(secrets.token_urlsafe(24))
    return settings.model_copy(update={"service_api_key": made}), True


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(settings: Settings) -> socket.socket:
    """Return a bound socket.

    Raises:
        ConfigurationError: the address is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "set PAGEVEC_HOST or PAGEVEC_PORT (or --host, --port)"
        ) from None


def address_of(listener: socket.socket) -> str:
    """Return the address that clients use."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_for(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Return a server that, at SIGTERM, takes nothing new and finishes what is in flight."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            http="httptools",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
    )


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until a signal comes and all requests are done."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it is done; a clean end is no death by signal.
        signal.signal(number, _ignore)
    server.run(sockets=[listener])


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
