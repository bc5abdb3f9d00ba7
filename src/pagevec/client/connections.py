"""The connections of a client: each process and event loop has its own; whom they trust."""

import contextlib
import importlib
import inspect
import os
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

import httpx

from pagevec.errors import ConfigurationError

if TYPE_CHECKING:  # it takes long to import, and a client without event loops needs none
    from asyncio import AbstractEventLoop

CertificateAuthority = str | os.PathLike[str] | ssl.SSLContext
"""A file of certificates in PEM form, or a context that is used as it is."""

HttpClient = TypeVar("HttpClient", bound=httpx.Client | httpx.AsyncClient)
_Loop: TypeAlias = "AbstractEventLoop | None"

# What httpx, numpy and Pillow otherwise import in the middle of a request. httpcore tries to import
# sniffio at every asynchronous request, and looks for it on the disk each time it is missing.
_NEEDED_BY_REQUESTS = (
    "httpcore",
    "encodings.idna",
    "encodings.cp437",
    "importlib.util",
    "zipfile",
)
_NEEDED_BY_LOOPS = ("sniffio", "anyio.abc", "anyio.lowlevel", "anyio.streams.tls")
_NEEDED_BY_IMAGES = ("PIL.Image", "PIL.ImageOps", "PIL.PngImagePlugin")
_MOST_IDLE = 20  # connections that wait for another request, as in httpx


class Connections(Generic[HttpClient]):
    """The HTTP clients behind one client, opened where they are first used. Thread-safe.

    A process that was forked inherits the sockets of its parent. If both used them, each would
    read answers to the other's requests; and closing them in the child may end the parent's
    connections. So a child opens its own, and only forgets the inherited ones. There is no lock
    here, because a thread that is gone after the fork could hold it for ever.

    Args:
        make: returns an HTTP client without connections.
    """

    def __init__(self, make: Callable[[], HttpClient]) -> None:
        self._make = make
        self._opened: dict[tuple[int, _Loop], HttpClient] = {}

    def current(self, loop: _Loop = None) -> HttpClient:
        """Return the HTTP client of this process and of `loop`."""
        owner = (os.getpid(), loop)
        opened = self._opened.get(owner)
        if opened is None:
            self._forget_others()
            opened = self._opened.setdefault(owner, self._make())
        return opened

    def forget(self, loop: _Loop = None) -> HttpClient | None:
        """Let the next request open new connections; return the former HTTP client."""
        return self._opened.pop((os.getpid(), loop), None)

    def _forget_others(self) -> None:
        for owner in list(self._opened):
            process, loop = owner
            if process != os.getpid() or (loop is not None and loop.is_closed()):
                self._opened.pop(owner, None)


class OwnedConnections(httpx.BaseTransport):
    """Lends each request connections that no other thread touches before its answer is closed.

    The threads of an `httpx.HTTPTransport` share one pool, and the thread that tidies it up may
    close a connection that another one was just given and is about to read from. That one then
    waits for its whole timeout. Here nothing is shared while it is in use. Like `Connections`, it
    needs no lock.

    Args:
        make: returns a transport without connections.
    """

    def __init__(self, make: Callable[[], httpx.BaseTransport]) -> None:
        self._make = make
        self._idle: deque[httpx.BaseTransport] = deque()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` over the connection that was used last, else over a new one."""
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = self._make()
        try:
            response = transport.handle_request(request)
        except BaseException:
            transport.close()
            raise
        content = cast(httpx.SyncByteStream, response.stream)
        response.stream = _Lent(content, lambda: self._take_back(transport))
        return response

    def close(self) -> None:
        """Close all connections; those that are in use, when their answers are closed."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take_back(self, transport: httpx.BaseTransport) -> None:
        if self._closed or len(self._idle) >= _MOST_IDLE:
            transport.close()
        else:
            self._idle.append(transport)


class _Lent(httpx.SyncByteStream):
    """An answer's content, with what to do when it is closed."""

    def __init__(self, content: httpx.SyncByteStream, give_back: Callable[[], None]) -> None:
        self._content = content
        self._give_back: Callable[[], None] | None = give_back

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._content)

    def close(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back:
            self._content.close()
            give_back()


def import_ahead(images: bool, loops: bool) -> None:
    """Import now what requests need later.

    A process that is forked while another thread imports a module inherits the lock of that
    import, which nobody releases there: the child would wait for ever at its first request.

    Args:
        images: whether images are resized, for which Pillow is used where it is installed.
        loops: whether requests are sent in event loops.
    """
    for name in (*_NEEDED_BY_REQUESTS, *(_NEEDED_BY_LOOPS if loops else ())):
        importlib.import_module(name)
    if loops:  # anyio imports each of its parts where that is first asked for
        inspect.getmembers(importlib.import_module("anyio"))
    if images:
        with contextlib.suppress(ImportError):
            for name in _NEEDED_BY_IMAGES:
                importlib.import_module(name)


def trust(ca: CertificateAuthority | None, *urls: str) -> ssl.SSLContext:
    """Return a TLS context that trusts `ca`, else what the environment names, else httpx's list.

    The environment names a file in SSL_CERT_FILE and folders in SSL_CERT_DIR. Where none of `urls`
    is https, nobody has to be trusted, and the environment is not looked at.

    Raises:
        ConfigurationError: there are no certificates where they should be.
    """
    if isinstance(ca, ssl.SSLContext):
        return ca
    if ca is not None:
        return _load("ca", os.fspath(ca))
    if not any(url.lower().startswith("https:") for url in urls):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folders:
        return _load("SSL_CERT_FILE", file or None, folders or None)
    return httpx.create_ssl_context(trust_env=False)


def _load(source: str, file: str | None, folders: str | None = None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file, capath=folders)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"{source}={file}: no certificates in PEM form can be read there "
            f"({error.strerror or error})"
        ) from error
