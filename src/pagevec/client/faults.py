"""The errors that a client raises: each is a `PagevecError`, and one of httpx's where one fits."""

import socket
import ssl
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import time
from typing import Self

import httpx

from pagevec import errors
from pagevec.errors import PagevecError
from pagevec.secrets import mask_key, mask_url


class ServiceError(PagevecError, httpx.HTTPStatusError):
    """The service answered with another status than the one that is wanted.

    Where the answer names one of `pagevec.errors`, the error is of that class too.

    Args:
        message: what the service says is wrong.
        response: the answer.
        index: position of the input at fault, where there is one.
        retry_after: seconds after which another attempt makes sense, where it does.
    """

    def __init__(
        self,
        message: str,
        *,
        response: httpx.Response,
        index: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message, self.index, self.retry_after = mask_url(message), index, retry_after
        httpx.HTTPStatusError.__init__(
            self, self.message, request=response.request, response=response
        )

    def at(self, index: int) -> Self:
        """Return this error with the blame on the input at `index`."""
        return type(self)(
            self.message, response=self.response, index=index, retry_after=self.retry_after
        )

    def adding(self, note: str) -> Self:
        """Return this error with `note` in brackets behind its message."""
        message, response = f"{self.message} ({note})", self.response
        return type(self)(
            message, response=response, index=self.index, retry_after=self.retry_after
        )


class Unreachable(PagevecError, httpx.TransportError):
    """There was no answer: no connection, or it broke. `__cause__` is httpx's own error."""


class Misaddressed(Unreachable):
    """There is no such host, or it is not the one it should be: its certificate is not trusted."""


class TimedOut(Unreachable, httpx.TimeoutException):
    """There was no answer in time."""


class UnsafeRedirect(PagevecError, httpx.RequestError):
    """The service redirects to another origin, which must not see the key."""


class WrongAnswer(PagevecError, httpx.DecodingError):
    """A 200 that does not answer the request: it has another form, or leaves inputs out."""


class ForeignAnswer(WrongAnswer):
    """An answer to another request came on this one's connection; nothing of it is used."""


_MOST_CHARS = 4000  # of what the service, or whoever answers in its place, says is wrong
_UNKNOWN_ISSUER = (18, 19, 20, 21)  # X509_V_ERR_* of OpenSSL
_TRUST = (
    ". If your network has a certificate authority of its own, name the file of its certificate: "
    "ca= of the client, --ca of a command, or SSL_CERT_FILE"
)

# Of the classes that share a code the first one counts: the others are special cases of it.
_BY_CODE: dict[str, type[ServiceError]] = {
    kind.code: type(kind.__name__, (ServiceError, kind), {"__doc__": kind.__doc__})
    for kind in reversed(vars(errors).values())
    if isinstance(kind, type) and issubclass(kind, PagevecError) and kind is not PagevecError
}


def read_error(response: httpx.Response) -> ServiceError:
    """Return the error that a response other than 200 stands for."""
    retry_after = _read_seconds(response.headers.get("retry-after", ""))
    try:
        content = response.json()
        kind = _BY_CODE.get(content["code"], ServiceError)
        message, index = without_key(str(content["error"]), response), content.get("index")
        index = index if isinstance(index, int) else None
    except Exception:  # whatever it is: the answer is a gateway's, not the service's
        kind, index = ServiceError, None
        reason = without_key(response.reason_phrase, response)
        message = f"{response.url} answered {response.status_code} {reason}"
    return kind(message[:_MOST_CHARS], response=response, index=index, retry_after=retry_after)


def without_key(text: str, response: httpx.Response) -> str:
    """Return `text`, which cites `response`, without the key that was sent."""
    return mask_key(text, response.request.headers.get("authorization", ""))


def wrap_error(error: httpx.RequestError, url: str) -> PagevecError:
    """Return the error to raise in place of httpx's own, which becomes its cause."""
    wrapped = _wrap(error, url)
    wrapped.__cause__ = error
    return wrapped


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error`, what caused it, what caused that, and so on."""
    cause = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _wrap(error: httpx.RequestError, url: str) -> PagevecError:
    why = f"{type(error).__name__} {error}".rstrip()
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"{url} did not answer: {why}")
    if isinstance(error, httpx.DecodingError):
        return WrongAnswer(f"{url}: the answer is damaged: {why}")
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            what_to_do = _TRUST if cause.verify_code in _UNKNOWN_ISSUER else ""
            return Misaddressed(
                f"{url}: its certificate cannot be verified: {cause.verify_message}{what_to_do}"
            )
        if isinstance(cause, socket.gaierror):
            return Misaddressed(f"{url}: there is no such host: {cause.strerror or cause}")
    return Unreachable(f"{url} did not answer: {why}")


def _read_seconds(retry_after: str) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
