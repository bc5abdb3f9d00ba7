"""Who may send requests, and how often: bearer keys and rate limits."""

import base64
import hashlib
import hmac
import logging
import time
from pathlib import Path

import limits
import limits.errors
from limits import parse_many
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import storage_from_string

from pagevec.errors import ConfigurationError, RateLimited, Unauthorized
from pagevec.extras import how_to_install
from pagevec.secrets import mask_pieces
from pagevec.settings import Settings

log = logging.getLogger(__name__)


class Keys:
    """The service's bearer keys, compared in constant time.

    Several are valid at once while they are rotated. Keys in a file are read again when the file
    changes, from the next request on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = _file_version(settings.service_api_key_file)
        self._names = _name_keys(settings)

    def check(self, authorization: str | None, *, allows_basic: bool = False) -> str:
        """Check an Authorization header (RFC 6750).

        Args:
            authorization: the header.
            allows_basic: whether the key may be the password of `Basic` (RFC 7617), too, for
                clients that have no other way than `http://user:KEY@host`.

        Returns:
            The name of the key, for logs and metrics.

        Raises:
            Unauthorized: the key is missing or wrong.
        """
        scheme, _, given = (authorization or "").partition(" ")
        if allows_basic and scheme.lower() == "basic":
            scheme, given = "bearer", _password(given)
        if scheme.lower() != "bearer" or not given.strip():
            raise Unauthorized("send the header `Authorization: Bearer <key>`")
        self._reload_changed_file()
        # Every key is compared, even after a match: the time must not reveal which one it is.
        secret = given.strip().encode()
        matches = [name for key, name in self._names.items() if hmac.compare_digest(key, secret)]
        if not matches:
            raise Unauthorized("this key is not valid here")
        return matches[0]

    def _reload_changed_file(self) -> None:
        """Read the file of keys again if it has changed; one that cannot be used is ignored."""
        version = _file_version(self._settings.service_api_key_file)
        if version == self._version:
            return
        self._version = version
        try:
            self._names = _name_keys(self._settings)
            log.info("the keys are now %s", ", ".join(self._names.values()))
        except ConfigurationError as error:
            log.error("the keys stay as they were: %s", error)


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials.strip()).decode().partition(":")[2]
    except ValueError:
        return ""


def _name_keys(settings: Settings) -> dict[bytes, str]:
    # Names for logs and metrics: they must not give the keys away.
    keys = [key.encode() for key in settings.keys]
    return {key: f"key-{hashlib.sha256(key).hexdigest()[:8]}" for key in keys}


def _file_version(file: Path | None) -> tuple[int, ...]:
    """Return a value that differs after each change of `file`, even if it was replaced."""
    try:
        stat = file.stat() if file is not None else None
    except OSError:
        stat = None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat else ()


class RateLimits:
    """Counts the requests of each key in a moving window, in memory or (several hosts) in Redis."""

    def __init__(self, settings: Settings) -> None:
        """Parse the rate and open the storage.

        Raises:
            ConfigurationError: the storage is unknown, or its package is not installed.
        """
        self._storage = settings.rate_limit_storage
        self._rates = parse_many(settings.rate_limit) if settings.rate_limit else []
        try:
            # redis-py, which pagevec[redis] brings; `limits` would look for another client
            counts = storage_from_string(
                f"async+{settings.rate_limit_storage}",
                implementation="redispy",
                wrap_exceptions=True,
            )
        except (limits.errors.ConfigurationError, ValueError) as error:
            raise ConfigurationError(
                f"{settings.cite('rate_limit_storage')}: "
                f"{mask_pieces(str(error), settings.rate_limit_storage)}; "
                f"use memory://, or redis://host:port with {how_to_install('redis')}"
            ) from None
        self._limiter = MovingWindowRateLimiter(counts)

    async def check(self, key: str) -> None:
        """Count one request of `key`.

        If the storage cannot be reached, requests pass: better uncounted than refused.

        Raises:
            RateLimited: the key is over its limit; `retry_after` says when to come back.
        """
        try:
            for rate in self._rates:
                await self._hit(rate, key)
        except limits.errors.StorageError as error:
            reason = mask_pieces(str(error.storage_error), self._storage)
            log.warning("requests are not counted: %s", reason)

    async def _hit(self, rate: limits.RateLimitItem, key: str) -> None:
        if not await self._limiter.hit(rate, key):
            window = await self._limiter.get_window_stats(rate, key)
            raise RateLimited(
                f"over the limit of {rate}; wait and try again",
                retry_after=max(1.0, window.reset_time - time.time()),
            )
