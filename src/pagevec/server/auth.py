"""Who may ask: bearer keys, compared in constant time."""

import hashlib
import hmac
from collections.abc import Sequence

from pagevec.errors import Unauthorized


class Keys:
    """The service's bearer keys; several are valid at once while they are rotated."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._names = {key.encode(): name_of(key) for key in keys}

    def check(self, authorization: str | None) -> str:
        """Return the name of the key in an Authorization header (RFC 6750).

        Raises:
            Unauthorized: there is none, or a wrong one.
        """
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Unauthorized("send the header `Authorization: Bearer <key>`")
        # Every key is compared, whichever matches: the time tells nothing.
        secret = given.strip().encode()
        matches = [name for key, name in self._names.items() if hmac.compare_digest(key, secret)]
        if not matches:
            raise Unauthorized("this key is not valid here")
        return matches[0]


def name_of(key: str) -> str:
    """Return a name for logs and metrics that does not give the key away."""
    return "key-" + hashlib.sha256(key.encode()).hexdigest()[:8]
