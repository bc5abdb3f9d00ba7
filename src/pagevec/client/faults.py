"""The errors that a client raises: each is a `PagevecError`, and one of httpx's where one fits."""

from email.utils import parsedate_to_datetime
from time import time
from typing import Self

import httpx

from pagevec import errors
from pagevec.errors import PagevecError


class ServiceError(PagevecError, httpx.HTTPStatusError):
    """The service answered with a status other than 200.

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
        httpx.HTTPStatusError.__init__(self, message, request=response.request, response=response)
        self.message, self.index, self.retry_after = message, index, retry_after

    def at(self, index: int) -> Self:
        """Return this error with the blame on the input at `index`."""
        return type(self)(
            self.message, response=self.response, index=index, retry_after=self.retry_after
        )


class Unreachable(PagevecError, httpx.TransportError):
    """There was no answer: no connection, or it broke. `__cause__` is httpx's own error."""


class TimedOut(Unreachable, httpx.TimeoutException):
    """There was no answer in time."""


class UnsafeRedirect(PagevecError, httpx.RequestError):
    """The service redirects to another origin, which must not see the key."""


class WrongAnswer(PagevecError, httpx.DecodingError):
    """A 200 that does not answer the request: it has another form, or leaves inputs out."""


_BY_CODE: dict[str, type[ServiceError]] = {
    kind.code: type(kind.__name__, (ServiceError, kind), {"__doc__": kind.__doc__})
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PagevecError) and kind is not PagevecError
}


def read_error(response: httpx.Response) -> ServiceError:
    """Return the error that a response other than 200 stands for."""
    retry_after = _read_seconds(response.headers.get("retry-after", ""))
    try:
        content = response.json()
        kind = _BY_CODE.get(content["code"], ServiceError)
        message, index = str(content["error"]), content.get("index")
    except (ValueError, KeyError, TypeError):  # from a gateway in front of the service
        kind, index = ServiceError, None
        message = f"{response.url} answered {response.status_code} {response.reason_phrase}"
    return kind(message, response=response, index=index, retry_after=retry_after)


def wrap_error(error: httpx.RequestError, url: str) -> Unreachable:
    """Return the error to raise in place of httpx's own, which becomes its cause."""
    kind = TimedOut if isinstance(error, httpx.TimeoutException) else Unreachable
    wrapped = kind(f"{url} did not answer: {type(error).__name__} {error}".rstrip())
    wrapped.__cause__ = error
    return wrapped


def _read_seconds(retry_after: str) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except ValueError:
        return None
