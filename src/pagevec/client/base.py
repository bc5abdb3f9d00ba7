"""What both clients share: their arguments, checked in the caller's words, and their requests."""

import math
import sys
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Generic, get_args

import httpx

from pagevec.client.connections import (
    CertificateAuthority,
    Connections,
    HttpClient,
    import_ahead,
    trust,
)
from pagevec.client.core import Core, Send
from pagevec.client.requests import RequestOptions
from pagevec.client.retry import Endpoints, RetryPolicy
from pagevec.errors import ConfigurationError, InvalidRequest, PagevecError
from pagevec.secrets import fault_of_key, mask_url
from pagevec.types import InputType
from pagevec.wire.quantize import Dtype

_MIB = 1024 * 1024
# A request may queue behind others; morphik-core waits as long.
_TIMEOUT = httpx.Timeout(600.0, connect=30.0)


class BaseClient(Generic[HttpClient]):
    """What `Client` and `AsyncClient` share."""

    _open_http: Callable[..., HttpClient]
    _in_loops: ClassVar[bool]

    def __init__(
        self,
        url: str | Sequence[str],
        key: str | None = None,
        *,
        dtype: Dtype = "float16",
        resize: bool = True,
        timeout: float | httpx.Timeout | None = _TIMEOUT,
        max_inputs: int = 16,
        max_bytes: int = 32 * _MIB,
        in_flight: int = 4,
        attempts: int = 3,
        patience: float = 600.0,
        set_aside_seconds: float = 60.0,
        ca: CertificateAuthority | None = None,
    ) -> None:
        """Prepare a client; its first call connects.

        Args:
            url: address of the service. Several are asked in rotation; one that fails is set aside.
            key: bearer key, the same for all addresses; None or empty where none is needed. Of a
                setting with several keys, `pagevec.secrets.first_key` returns the one to send.
            dtype: data type of vectors on the wire (see docs/http-api.md); calls return float32.
            resize: whether images are resized to the model's own size before they are sent, which
                takes fewer bytes. Needs Pillow.
            timeout: of a single attempt, in seconds: to connect, to send, and to wait for the
                answer, which also bounds how long a result is polled for; None: no limit but
                `patience`. An `httpx.Timeout` has one limit for each of these.
            max_inputs: inputs in one request; the service's own limit counts too.
            max_bytes: bytes of one request; the service's own limit counts too.
            in_flight: requests of one call at the same time.
            attempts: of a request at each address, where the service fails or does not answer in
                time. With 1, a connection that is refused or breaks is not tried again either.
            patience: seconds for one request with all that it waits for: answers, pauses, attempts
                at a service that is busy, starting or away. With 0, each request is sent once.
            set_aside_seconds: how long a failing address is left alone.
            ca: whom to trust for https: a file of certificates (PEM), or a context. Default:
                what SSL_CERT_FILE and SSL_CERT_DIR name, else httpx's list.

        Raises:
            ConfigurationError: an address, the key, the dtype or a number cannot be used, or there
                are no certificates where `ca` or the environment says. The key is not shown.
        """
        limits = {"max_inputs": max_inputs, "max_bytes": max_bytes}
        for name, count in {**limits, "in_flight": in_flight, "attempts": attempts}.items():
            _check_count(name, count, ConfigurationError)
        for name, seconds in {"patience": patience, "set_aside_seconds": set_aside_seconds}.items():
            if not (isinstance(seconds, Real) and seconds >= 0):
                raise ConfigurationError(f"{name}={seconds!r}: expected seconds, at least 0")
        _check_dtype(dtype, ConfigurationError)
        import_ahead(images=resize, loops=self._in_loops)
        urls = url if isinstance(url, Sequence) and not isinstance(url, str) else [url]
        self._dtype, self._resize, self._in_flight = dtype, resize, in_flight
        self._timeout = _read_timeout(timeout)
        self._endpoints = Endpoints(urls, set_aside_seconds)
        self._core = Core(
            self._endpoints,
            RetryPolicy(attempts, patience),
            polling_seconds=math.inf if self._timeout.read is None else self._timeout.read,
            **limits,
        )
        # Read here, so that a file without certificates is an error now.
        trusted = trust(ca, *self._endpoints.urls)
        options = dict[str, Any](
            headers=bearer(key) if key else {},
            trust_env=False,  # a proxy or .netrc of the environment would see or replace the key
            follow_redirects=False,  # the core follows those that are safe
        )
        self._connections: Connections[HttpClient]
        self._connections = Connections(lambda: self._open_http(trusted, **options))

    def __repr__(self) -> str:
        """Name the addresses; the key is not shown."""
        urls = [mask_url(url) for url in self._endpoints.urls]
        shown = urls[0] if len(urls) == 1 else urls
        return f"{type(self).__name__}({shown!r})"

    def _options(
        self, input_type: InputType, dtype: Dtype | None, pool_factor: int = 1, tokens: bool = False
    ) -> RequestOptions:
        """Return the options of a call.

        Raises:
            InvalidRequest: one of them has a value that it cannot have.
        """
        dtype = self._dtype if dtype is None else dtype
        _check_dtype(dtype, InvalidRequest)
        _check_count("pool_factor", pool_factor, InvalidRequest)
        return RequestOptions(input_type, dtype, int(pool_factor), tokens)

    def _request(self, step: Send) -> dict[str, Any]:
        """Return the arguments of httpx's request; no timeout is longer than `step.seconds`."""
        parts = {
            name: min(step.seconds, math.inf if seconds is None else seconds)
            for name, seconds in self._timeout.as_dict().items()
        }
        url = httpx.URL(step.url)
        return {
            "method": step.method,
            # httpx logs addresses, with the passwords in them.
            "url": url.copy_with(userinfo=b""),
            "auth": (url.username, url.password) if url.userinfo else None,
            "content": step.content,
            "headers": {**_trace_headers(), **step.headers},
            "timeout": httpx.Timeout(
                **{name: None if math.isinf(most) else most for name, most in parts.items()}
            ),
        }


def _trace_headers() -> dict[str, str]:
    """Return the headers that let a service continue the caller's trace (W3C Trace Context).

    There are none unless the caller has a span of OpenTelemetry that is current.
    """
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:  # nobody has a span without it
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries `key`.

    Raises:
        ConfigurationError: no header can; the message does not show the key, as httpx's own would.
    """
    if fault := fault_of_key(key):
        raise ConfigurationError(f"the key cannot be sent: {fault}")
    return {"Authorization": f"Bearer {key}"}


def _read_timeout(timeout: float | httpx.Timeout | None) -> httpx.Timeout:
    if timeout is None or isinstance(timeout, httpx.Timeout):
        return httpx.Timeout(timeout)
    if not (isinstance(timeout, Real) and timeout > 0):
        raise ConfigurationError(
            f"timeout={timeout!r}: expected seconds above 0, None or an httpx.Timeout"
        )
    return httpx.Timeout(float(timeout))


def _check_count(name: str, number: Any, kind: type[PagevecError]) -> None:
    if not (isinstance(number, Integral) and int(number) >= 1):
        raise kind(f"{name}={number!r}: expected at least 1, as a whole number")


def _check_dtype(dtype: Any, kind: type[PagevecError]) -> None:
    known = get_args(Dtype)
    if not (isinstance(dtype, str) and dtype in known):
        raise kind(f"dtype={dtype!r}: expected one of {', '.join(map(repr, known))}")
