"""Who may ask: bearer keys, compared in constant time."""

import hashlib
import hmac
import logging
from pathlib import Path

from pagevec.errors import ConfigurationError, Unauthorized
from pagevec.settings import Settings

log = logging.getLogger(__name__)


class Keys:
    """The service's bearer keys; several are valid at once while they are rotated.

    Where they stand in a file, a change of the file counts from the next request on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = _version(settings.service_api_key_file)
        self._names = _names(settings)

    def check(self, authorization: str | None) -> str:
        """Return the name of the key in an Authorization header (RFC 6750).

        Raises:
            Unauthorized: there is none, or a wrong one.
        """
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Unauthorized("send the header `Authorization: Bearer <key>`")
        self._read_again()
        # Every key is compared, whichever matches: the time tells nothing.
        secret = given.strip().encode()
        matches = [name for key, name in self._names.items() if hmac.compare_digest(key, secret)]
        if not matches:
            raise Unauthorized("this key is not valid here")
        return matches[0]

    def _read_again(self) -> None:
        """Take in a file that has changed. One that cannot be used leaves the keys as they are."""
        version = _version(self._settings.service_api_key_file)
        if version == self._version:
            return
        self._version = version
        try:
            self._names = _names(self._settings)
            log.info("the keys are now %s", ", ".join(self._names.values()))
        except ConfigurationError as error:
            log.error("the keys stay as they were: %s", error)


def _names(settings: Settings) -> dict[bytes, str]:
    return {key.encode(): name_of(key) for key in settings.keys}


def _version(file: Path | None) -> tuple[int, ...]:
    """Return what is another one after each change of `file`, also where it was replaced."""
    try:
        facts = file.stat() if file is not None else None
    except OSError:
        facts = None
    return (facts.st_ino, facts.st_mtime_ns, facts.st_size) if facts else ()


def name_of(key: str) -> str:
    """Return a name for logs and metrics that does not give the key away."""
    return "key-" + hashlib.sha256(key.encode()).hexdigest()[:8]
