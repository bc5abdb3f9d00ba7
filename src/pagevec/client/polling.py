"""Modal's 303: a request that runs long is answered with an address to ask for the result."""

import time

import httpx

from pagevec.client.faults import TimedOut, UnsafeRedirect
from pagevec.client.steps import Exchange, Send, Sleep

SEE_OTHER = 303
_PORTS = {"http": 80, "https": 443}
# Modal holds each poll for up to 150 s by itself; this keeps others from being asked in a loop.
_PAUSE_SECONDS = 0.1


def settled(response: httpx.Response, seconds: float) -> Exchange[httpx.Response]:
    """Follow 303 with GET, within the origin that was asked, for `seconds` at most.

    Raises:
        UnsafeRedirect: it leads to another scheme, host or port; nothing is sent there.
        TimedOut: the result did not come in time.
    """
    until = time.monotonic() + seconds
    while response.status_code == SEE_OTHER:
        target = _target(response)
        if time.monotonic() > until:
            raise TimedOut(f"{response.url} gave no result within {seconds:g} s")
        yield Sleep(_PAUSE_SECONDS)
        response = yield Send("GET", target)
    return response


def _target(response: httpx.Response) -> str:
    try:
        target = response.url.join(response.headers.get("location", ""))
    except httpx.InvalidURL as error:
        raise UnsafeRedirect(f"{response.url} redirects to no address: {error}") from None
    if _origin(target) != _origin(response.url):
        raise UnsafeRedirect(
            f"{response.url} redirects to another origin, {target.scheme}://{target.netloc.decode()}"
        )
    # A name in the address would replace the key.
    return str(target.copy_with(userinfo=b""))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)
