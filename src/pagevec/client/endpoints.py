"""Several addresses of one service: by turns; one that fails is left alone for a while."""

import threading
import time
from collections.abc import Callable, Sequence

import httpx

from pagevec.errors import ConfigurationError


class Endpoints:
    """The addresses, and until when each is set aside. May be used from many threads."""

    def __init__(
        self,
        urls: Sequence[str],
        aside_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the addresses in the order in which they shall be asked.

        Raises:
            ConfigurationError: there is none, or one is not an http(s) address.
        """
        self._until = dict.fromkeys(map(_checked, urls), 0.0)
        if not self._until:
            raise ConfigurationError("there is no address to ask")
        self._aside_seconds = aside_seconds
        self._clock = clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._until)

    def pick(self) -> str:
        """Return whose turn it is: one that is not set aside, else the first to come back."""
        with self._lock:
            now = self._clock()
            url = min(self._until, key=lambda one: max(self._until[one], now))
            self._until[url] = self._until.pop(url)  # to the end of the row
            return url

    def set_aside(self, url: str, seconds: float | None = None) -> None:
        """Leave `url` alone for `seconds`, or as long as usual."""
        with self._lock:
            pause = self._aside_seconds if seconds is None else seconds
            # A second at least: "come back at once" is no reason to ask in a busy loop.
            self._until[url] = self._clock() + max(1.0, pause)

    def restore(self, url: str) -> None:
        """Take `url` back: it has answered."""
        with self._lock:
            self._until[url] = 0.0

    def any_ready(self) -> bool:
        """Whether one is not set aside."""
        with self._lock:
            return min(self._until.values()) <= self._clock()


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{url!r} is no address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"{url!r} is no address that starts with http:// or https://")
    return url.rstrip("/")
