"""How much may come: the rate of each key, the length of a body."""

import logging
import time

import limits
import limits.errors
from limits import parse_many
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import storage_from_string
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from pagevec.errors import BodyTooLarge, ConfigurationError, RateLimited

log = logging.getLogger(__name__)


class RateLimits:
    """Requests of each key in a moving window, counted in memory or (several hosts) in Redis."""

    def __init__(self, rate: str | None, storage: str) -> None:
        """Read the rate and reach for the storage.

        Raises:
            ConfigurationError: there is no such storage, or its package is not installed.
        """
        self._rates = parse_many(rate) if rate else []
        try:
            # redis-py, which pagevec[redis] brings; `limits` would look for another client
            counts = storage_from_string(
                f"async+{storage}", implementation="redispy", wrap_exceptions=True
            )
        except (limits.errors.ConfigurationError, ValueError) as error:
            raise ConfigurationError(
                f"PAGEVEC_RATE_LIMIT_STORAGE is {storage!r}: {error}; "
                "take memory://, or redis://host:port with `pip install pagevec[redis]`"
            ) from None
        self._limiter = MovingWindowRateLimiter(counts)

    async def check(self, key: str) -> None:
        """Count one request of `key`.

        A storage that cannot be reached lets requests pass: a limit is no reason to lose a page.

        Raises:
            RateLimited: it is one too many; says when the next one may come.
        """
        try:
            for rate in self._rates:
                await self._hit(rate, key)
        except limits.errors.StorageError as error:
            log.warning("rates are not counted: %s", error.storage_error)

    async def _hit(self, rate: limits.RateLimitItem, key: str) -> None:
        if not await self._limiter.hit(rate, key):
            window = await self._limiter.get_window_stats(rate, key)
            raise RateLimited(
                f"over the limit of {rate}; wait and try again",
                retry_after=max(1.0, window.reset_time - time.time()),
            )


async def read_body(receive: Receive, content_length: str | None, limit: int) -> bytearray:
    """Read a request's body.

    Raises:
        BodyTooLarge: it says that it is longer than `limit` bytes, or turns out to be.
        ClientDisconnect: the caller left.
    """
    if content_length is not None and content_length.isdigit() and int(content_length) > limit:
        raise _too_large(f"{int(content_length):,} bytes", limit)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large("longer", limit)
        more = message.get("more_body", False)
    return body


def _too_large(size: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is {size}, the limit is {limit:,} bytes: send fewer inputs")
