"""What a call asks of the world. The client's logic is generators of these steps, without I/O.

`sync` and `aio` carry the steps out, each in its way, and send the outcome back in.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request; the outcome is an `httpx.Response`, or an `httpx.RequestError` thrown in."""

    method: str
    url: str
    content: bytes | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers besides those of every request."""
        return {} if self.content is None else {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Do something that keeps a processor busy; the outcome is what it returns."""

    do: Callable[[], Any]


Exchange = Generator[Send | Sleep | Work, Any, T]
"""A call in steps: yields what shall be done, is sent the outcomes, returns a `T`."""
