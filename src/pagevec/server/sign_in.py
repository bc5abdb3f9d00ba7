"""The way from a printed address to the page: a token that is exchanged for the key, once.

It exists only where `pagevec serve` made the key and listens on loopback. A web page that a user
of this machine visits must not get the key: it does not know the token, and a request that another
origin makes is refused anyway.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pagevec.errors import Forbidden, InvalidRequest
from pagevec.server.bodies import received
from pagevec.server.own_key import is_loopback
from pagevec.wire.documents import SignInRequest
from pagevec.wire.schema import explain

LIFETIME_SECONDS = 600.0
_MOST_BYTES = 1024


class SignIn:
    """Gives the key to who has the token: once, within ten minutes.

    Args:
        key: that `pagevec serve` made.
        clock: tells the time in seconds.
    """

    def __init__(self, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._token: str | None = None
        self._ends = 0.0

    def new_token(self) -> str:
        """Return a token, which takes the place of an earlier one."""
        with self._lock:
            self._token, self._ends = secrets.token_urlsafe(24), self._clock() + LIFETIME_SECONDS
            return self._token

    def exchange(self, token: str) -> str:
        """Return the key.

        Raises:
            Forbidden: the token is wrong, was used, or is too old.
        """
        with self._lock:
            known, is_in_time = self._token, self._clock() < self._ends
            if known and is_in_time and hmac.compare_digest(known.encode(), token.encode()):
                self._token = None
                return self._key
        raise Forbidden(
            "this address has been used, or is older than ten minutes: enter the key that "
            "`pagevec serve` keeps, or start it again"
        )

    async def answer(self, request: Request) -> Response:
        """Answer `POST /sign-in`."""
        _refuse_foreign(request)
        body = bytearray()
        async for piece in received(request.receive):
            body += piece
            if len(body) > _MOST_BYTES:
                raise InvalidRequest("the body is too long: send the token alone")
        try:
            asked = SignInRequest.model_validate(orjson.loads(bytes(body)))
        except ValidationError as error:
            raise explain(error) from None
        except ValueError:
            raise InvalidRequest('send {"token": ...} as JSON') from None
        key = self.exchange(asked.token)
        return JSONResponse({"key": key}, headers={"Cache-Control": "no-store"})


def _refuse_foreign(request: Request) -> None:
    """Refuse what a page of another origin sends, and what reached us under a foreign name."""
    headers = request.headers
    host = headers.get("host", "")
    origin = headers.get("origin")
    fetched_from = headers.get("sec-fetch-site", "same-origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    is_ours = is_loopback(name) and fetched_from == "same-origin"
    if not is_ours or (origin is not None and origin != f"http://{host}"):
        raise Forbidden("only the page of this service itself can sign in")
