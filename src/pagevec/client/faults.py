"""What a client's call can raise: all are `PagevecError`, and of httpx's kinds where one fits."""

from email.utils import parsedate_to_datetime
from time import time
from typing import Self

import httpx

from pagevec import errors
from pagevec.errors import PagevecError


class ServiceError(PagevecError, httpx.HTTPStatusError):
    """The service answered with another status than 200.

    Where the answer names one of `pagevec.errors`, the error is of that class too.
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
        """Return the same error, blaming the input at `index`."""
        return type(self)(
            self.message, response=self.response, index=index, retry_after=self.retry_after
        )


class Unreachable(PagevecError, httpx.TransportError):
    """No answer came: no connection, or it broke. `__cause__` is httpx's own error."""


class TimedOut(Unreachable, httpx.TimeoutException):
    """No answer came in time."""


class UnsafeRedirect(PagevecError, httpx.RequestError):
    """The service redirects to another origin, where the key must not go."""


class WrongAnswer(PagevecError, httpx.DecodingError):
    """A 200 that does not answer the request: of another form, or not for all inputs."""


_BY_CODE: dict[str, type[ServiceError]] = {
    kind.code: type(kind.__name__, (ServiceError, kind), {"__doc__": kind.__doc__})
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PagevecError) and kind is not PagevecError
}


def fault_of(response: httpx.Response) -> ServiceError:
    """Return the error that an answer other than 200 carries."""
    retry_after = _seconds(response.headers.get("retry-after", ""))
    try:
        content = response.json()
        kind = _BY_CODE.get(content["code"], ServiceError)
        message, index = str(content["error"]), content.get("index")
    except (ValueError, KeyError, TypeError):  # not the service: a gateway before it
        kind, index = ServiceError, None
        message = f"{response.url} answered {response.status_code} {response.reason_phrase}"
    return kind(message, response=response, index=index, retry_after=retry_after)


def fault_from(error: httpx.RequestError, url: str) -> Unreachable:
    """Return our error for one of httpx's, which becomes its cause."""
    kind = TimedOut if isinstance(error, httpx.TimeoutException) else Unreachable
    fault = kind(f"{url} gave no answer: {type(error).__name__} {error}".rstrip())
    fault.__cause__ = error
    return fault


def _seconds(retry_after: str) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except ValueError:
        return None
