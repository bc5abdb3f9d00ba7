"""Which errors are worth another attempt, after how long, and at which address. No I/O here."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import httpx

from pagevec.client.faults import (
    ForeignAnswer,
    Misaddressed,
    ServiceError,
    Unreachable,
    causes,
)
from pagevec.errors import ConfigurationError, PagevecError
from pagevec.secrets import mask_pieces

_INTERNAL, _REQUEST_TIMEOUT, _STORAGE_FULL = 500, 408, 507
# "Later": of the service itself (429, 503), or of a gateway that does not reach it (502, 504, and
# the numbers that content delivery networks have for that).
_LATER = frozenset({429, 502, 503, 504, *range(520, 531)})
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
_MOST_DOUBLINGS = 10  # by then the longest backoff is reached
_DISCONNECTED_CAUSES = 2  # httpx's error and httpcore's
_LEAST_SECONDS = 1.0  # of an attempt, so that the last one has a chance

Outlook = Literal["lasting", "misaddressed", "failing", "away", "busy"]
"""Whether another attempt may succeed: never; only at another address; perhaps; once the service
is back; once it has time."""


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
        self._aside_until = dict.fromkeys(map(normalize_url, urls), 0.0)
        if not self._aside_until:
            raise ConfigurationError("no service URL given: expected at least one")
        self._aside_seconds = aside_seconds
        self._clock = clock
        # No lock: a thread that holds it while the process forks would hold it in the child for
        # ever. Two threads that pick at the same moment may pick the same address.
        self._turns = count()
        self._last_turn = dict.fromkeys(self._aside_until, -1)

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses, without a slash at their end."""
        return tuple(self._aside_until)

    def __len__(self) -> int:
        return len(self._aside_until)

    def pick(self) -> str:
        """Return the next address that is not set aside, else the first to come back."""
        now = self._clock()
        url = min(
            self._aside_until,
            key=lambda one: (max(self._aside_until[one], now), self._last_turn[one]),
        )
        self._last_turn[url] = next(self._turns)
        return url

    def set_aside(self, url: str, seconds: float | None = None) -> None:
        """Leave `url` alone for `seconds`, or for the default time."""
        pause = self._aside_seconds if seconds is None else seconds
        # At least one second: `Retry-After: 0` must not lead to a busy loop.
        self._aside_until[url] = self._clock() + max(1.0, pause)

    def restore(self, url: str) -> None:
        """Return `url`, which has answered, to the rotation."""
        self._aside_until[url] = 0.0

    def any_ready(self) -> bool:
        """Whether at least one address is not set aside."""
        return min(self._aside_until.values()) <= self._clock()


@dataclass(frozen=True)
class RetryPolicy:
    """How long, and how often, one request is sent.

    Attributes:
        attempts: at each address, where the service fails or does not answer in time. With 1,
            a connection that is refused or breaks is not tried again either.
        patience: seconds from the first attempt, for everything: sending, waiting for the answer,
            pausing, sending again. 0: each request is sent once, and has as long as it takes.
    """

    attempts: int = 3
    patience: float = 600.0

    def allowing(self, seconds: float) -> "RetryPolicy":
        """Return this policy with more patience, where it has any."""
        return replace(self, patience=self.patience + seconds) if self.patience else self


class Budget:
    """What one request may still spend of its policy, from now on.

    Args:
        policy: the whole budget.
        endpoints: the addresses; another one that is ready is asked at once.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        endpoints: Endpoints,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._endpoints = endpoints
        self._clock = clock
        self._started = clock()
        self._attempts = self._failures = 0

    @property
    def attempt_seconds(self) -> float:
        """How long the next attempt may take."""
        return max(_LEAST_SECONDS, self._left) if self._policy.patience else math.inf

    def pause_after(self, error: PagevecError) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            error: what the last attempt raised.

        Raises:
            PagevecError: `error`, saying what was spent, if there shall be no other attempt.
        """
        outlook = outlook_after(error)
        if outlook == "lasting":
            raise error
        self._attempts += 1
        is_elsewhere = self._endpoints.any_ready()
        asked = 0.0 if is_elsewhere else error.retry_after or 0.0
        if asked > max(0.0, self._left):
            why = f"it asks to be left alone for {asked:.0f} s; "
            raise self._giving_up(error, why) from error.__cause__
        if not self._allows_another(outlook, is_elsewhere):
            raise self._giving_up(error) from error.__cause__
        if is_elsewhere:
            return 0.0
        return min(asked + _backoff(self._attempts), self._left)

    @property
    def _left(self) -> float:
        return self._policy.patience - (self._clock() - self._started)

    def _allows_another(self, outlook: Outlook, is_elsewhere: bool) -> bool:
        if self._left <= 0:
            return False
        if outlook == "misaddressed":
            return is_elsewhere
        if outlook == "busy" or (outlook == "away" and self._policy.attempts > 1):
            return True
        self._failures += 1
        return self._failures < self._policy.attempts * len(self._endpoints)

    def _giving_up(self, error: PagevecError, why: str = "") -> PagevecError:
        tries = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
        spent = self._clock() - self._started
        note = f"{why}{tries} in {spent:.1f} s, with a patience of {self._policy.patience:g} s"
        return error.adding(note)


def outlook_after(error: BaseException) -> Outlook:
    """Return whether another attempt may succeed after `error`."""
    if isinstance(error, ServiceError):
        status = error.response.status_code
        if status in _LATER:
            return "busy"
        is_failing = status >= _INTERNAL or status == _REQUEST_TIMEOUT
        # A full disk stays full until somebody removes something.
        return "failing" if is_failing and status != _STORAGE_FULL else "lasting"
    if isinstance(error, Misaddressed):
        return "misaddressed"
    if isinstance(error, ForeignAnswer):
        return "failing"
    if isinstance(error, Unreachable):
        return _outlook_without_answer(error)
    return "lasting"


def is_passing(error: BaseException) -> bool:
    """Whether another attempt may succeed, now or later."""
    return outlook_after(error) != "lasting"


def normalize_url(url: str) -> str:
    """Return the address of a service without a slash at its end.

    Raises:
        ConfigurationError: it is no address of http or https. A text without either is not cited:
            the key may stand in the address's place.
    """
    if not isinstance(url, str) or "://" not in url:
        raise ConfigurationError(
            "the service's URL does not begin with http:// or https://: expected one such as "
            "http://127.0.0.1:8765"
        )
    if fault := _fault_of_url(url):
        raise ConfigurationError(f"invalid service URL {url!r}: {fault}")
    return url.rstrip("/")


def _fault_of_url(url: str) -> str | None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:  # it cites parts of a password
        return mask_pieces(str(error), url)
    is_one = parsed.scheme in ("http", "https") and parsed.host
    return None if is_one else "expected http://host[:port] or https://host[:port]"


def _outlook_without_answer(error: Unreachable) -> Outlook:
    cause = error.__cause__
    if isinstance(cause, (httpx.NetworkError, httpx.ConnectTimeout)):
        return "away"
    if isinstance(cause, httpx.RemoteProtocolError):
        # httpcore reports a connection that ends before an answer by itself, and hands on what
        # its parser says of answers that break off or are no HTTP.
        is_parsers = len(list(causes(cause))) > _DISCONNECTED_CAUSES
        return "failing" if is_parsers else "away"
    is_ours = isinstance(cause, (httpx.LocalProtocolError, httpx.UnsupportedProtocol))
    return "lasting" if is_ours else "failing"


def _backoff(attempt: int) -> float:
    """Return seconds by exponential backoff with full jitter."""
    longest = _FIRST_BACKOFF * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)
    return random.uniform(0.0, min(longest, _LONGEST_BACKOFF))  # noqa: S311  # not a secret
