"""How a client is made: the same for both, and what it hands to httpx."""

from collections.abc import Sequence
from typing import Any

import httpx

from pagevec.client._protocol import headers
from pagevec.client.core import Core, Sizes
from pagevec.client.endpoints import Endpoints
from pagevec.client.retry import Policy
from pagevec.errors import ConfigurationError

_MIB = 1024 * 1024
# One request may queue behind others; morphik-core waits as long.
_TIMEOUT = httpx.Timeout(600.0, connect=30.0)


class BaseClient:
    """The settings of a client.

    Args:
        url: of the service, or several of them: they take turns, and one that fails is set aside.
        key: bearer key, the same for all.
        timeout: of a single request; also how long a result is polled for (its `read`).
        max_inputs, max_bytes: of one request; the service's own limits count too.
        in_flight: requests of one call at the same time.
        attempts: of a request at each address, where it fails or gives no answer.
        patience: seconds for which a busy or starting service (429, 503) is asked again.
        set_aside_seconds: how long a failing address is left alone.

    Raises:
        ConfigurationError: an address is none, or a number is below 1.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        key: str | None = None,
        *,
        timeout: httpx.Timeout = _TIMEOUT,
        max_inputs: int = 16,
        max_bytes: int = 32 * _MIB,
        in_flight: int = 4,
        attempts: int = 3,
        patience: float = 300.0,
        set_aside_seconds: float = 60.0,
    ) -> None:
        if min(max_inputs, max_bytes, in_flight, attempts) < 1:
            raise ConfigurationError("max_inputs, max_bytes, in_flight and attempts are at least 1")
        urls = [url] if isinstance(url, str) else url
        self._core = Core(
            Endpoints(urls, set_aside_seconds),
            Policy(attempts, patience),
            Sizes(max_inputs, max_bytes, timeout.read or _TIMEOUT.read or 0.0),
        )
        self._in_flight = in_flight
        # No redirects: polling follows the one that is safe. No environment: a proxy or a .netrc
        # in it would see or replace the key.
        self._connect(
            headers=headers(key), timeout=timeout, trust_env=False, follow_redirects=False
        )

    def _connect(self, **options: Any) -> None:
        """Make the client of httpx."""
        raise NotImplementedError


def checked(inputs: Sequence[Any]) -> Sequence[Any]:
    """Return `inputs`.

    Raises:
        TypeError: it is one input, not a list of them.
    """
    if isinstance(inputs, (str, bytes)):
        raise TypeError("give a list of inputs, not a single one")
    return inputs
