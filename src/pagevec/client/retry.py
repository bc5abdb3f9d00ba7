"""Which errors are worth another attempt, after how long, and at which address. No I/O here."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from pagevec.client.faults import ServiceError, Unreachable
from pagevec.errors import ConfigurationError, PagevecError

_TOO_MANY_REQUESTS, _INTERNAL, _UNAVAILABLE = 429, 500, 503
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
_MOST_DOUBLINGS = 10  # by then the longest backoff is reached


class Endpoints:
    """The addresses of one service, in rotation; a failing one is set aside. Thread-safe.

    Args:
        urls: addresses, in the order in which they are first asked.
        aside_seconds: how long a failing address is left alone, unless its answer says.
        clock: tells the time in seconds.

    Raises:
        ConfigurationError: there is no address, or one is invalid.
    """

    def __init__(
        self,
        urls: Sequence[str],
        aside_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._aside_until = dict.fromkeys(map(_normalize, urls), 0.0)
        if not self._aside_until:
            raise ConfigurationError("no service URL given: expected at least one")
        self._aside_seconds = aside_seconds
        self._clock = clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._aside_until)

    def pick(self) -> str:
        """Return the next address that is not set aside, else the first to come back."""
        with self._lock:
            now = self._clock()
            url = min(self._aside_until, key=lambda one: max(self._aside_until[one], now))
            self._aside_until[url] = self._aside_until.pop(url)  # to the end of the rotation
            return url

    def set_aside(self, url: str, seconds: float | None = None) -> None:
        """Leave `url` alone for `seconds`, or for the default time."""
        with self._lock:
            pause = self._aside_seconds if seconds is None else seconds
            # At least one second: `Retry-After: 0` must not lead to a busy loop.
            self._aside_until[url] = self._clock() + max(1.0, pause)

    def restore(self, url: str) -> None:
        """Return `url`, which has answered, to the rotation."""
        with self._lock:
            self._aside_until[url] = 0.0

    def any_ready(self) -> bool:
        """Whether at least one address is not set aside."""
        with self._lock:
            return min(self._aside_until.values()) <= self._clock()


@dataclass(frozen=True)
class RetryPolicy:
    """How long a request is repeated.

    Attributes:
        attempts: at each address, where it fails or gives no answer.
        patience: seconds for which a busy or starting service (429, 503) is asked again.
    """

    attempts: int = 3
    patience: float = 300.0

    def pause_before_retry(
        self, error: PagevecError, attempt: int, elapsed: float, endpoints: Endpoints
    ) -> float | None:
        """Return how many seconds to wait before the next attempt; None if there shall be none.

        Args:
            error: what the last attempt raised.
            attempt: its number, from 1.
            elapsed: seconds since the first attempt began.
            endpoints: the addresses; another one that is ready is asked at once.
        """
        if not is_passing(error):
            return None
        pause = 0.0
        if not endpoints.any_ready():
            pause = (error.retry_after or 0.0) + _backoff(attempt)
        if _is_busy(error):
            return pause if elapsed + pause <= self.patience else None
        return pause if attempt < self.attempts * len(endpoints) else None


def is_passing(error: BaseException) -> bool:
    """Whether another attempt may succeed: after 429, 5xx, or no answer at all."""
    if isinstance(error, ServiceError):
        status = error.response.status_code
        return status == _TOO_MANY_REQUESTS or status >= _INTERNAL
    return isinstance(error, Unreachable)


def _is_busy(error: PagevecError) -> bool:
    busy = (_TOO_MANY_REQUESTS, _UNAVAILABLE)
    return isinstance(error, ServiceError) and error.response.status_code in busy


def _backoff(attempt: int) -> float:
    """Return seconds by exponential backoff with full jitter."""
    longest = _FIRST_BACKOFF * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)
    return random.uniform(0.0, min(longest, _LONGEST_BACKOFF))  # noqa: S311  # not a secret


def _normalize(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"invalid service URL {url!r}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(
            f"invalid service URL {url!r}: expected http://host[:port] or https://host[:port]"
        )
    return url.rstrip("/")
