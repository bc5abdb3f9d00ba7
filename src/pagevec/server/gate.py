"""What each request that needs a key passes first, and how long it may hold a thread or wait."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from pagevec.errors import Draining, QueueFull
from pagevec.server.budget import Hold, Rooms
from pagevec.server.security import Keys, RateLimits
from pagevec.server.telemetry import get_record, is_draining
from pagevec.settings import Settings

_Result = TypeVar("_Result")


class Gate:
    """Lets callers in: by their key, within its rate, while the service takes requests.

    Args:
        settings: with the keys and the rate.

    Raises:
        ConfigurationError: the keys or the storage of the rate limits cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings)
        self._rates = RateLimits(settings)

    async def admit(self, request: Request, *, allows_basic: bool = False) -> str:
        """Return the name of the request's key.

        Args:
            request: with the key.
            allows_basic: see `Keys.check`.

        Raises:
            Unauthorized: the key is missing or wrong.
            RateLimited: it is over its limit.
            Draining: the service is shutting down.
        """
        authorization = request.headers.get("authorization")
        key = self._keys.check(authorization, allows_basic=allows_basic)
        get_record(request).key = key
        await self._rates.check(key)
        if is_draining(request):
            raise Draining("this service is shutting down: ask again, or ask another one")
        return key


class Crew:
    """Threads for one kind of work, with a line before them in which no key takes all places.

    Args:
        name: of the threads.
        threads: how many.
        most: calls that may wait or run at once; those of one key, half as many.
    """

    def __init__(self, name: str, threads: int, most: int) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._most = most
        self._calls: Counter[str] = Counter()

    async def run(
        self, key: str, receive: Receive, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Return what `function` returns, called in a thread.

        Args:
            key: name of the caller's key.
            receive: tells when the caller leaves; a call that has not begun is then dropped.
            function: to be called.
            *arguments: its arguments.

        Raises:
            QueueFull: too many calls wait already.
            ClientDisconnect: the caller left.
        """
        if self._calls.total() >= self._most or self._calls[key] >= self._most // 2:
            raise QueueFull("too many requests of this kind wait already; try again later")
        self._calls[key] += 1
        called = self._pool.submit(function, *arguments)
        loop = asyncio.get_running_loop()

        def leave() -> None:
            self._calls -= Counter({key: 1})

        def note_end(_: object) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(leave)

        called.add_done_callback(note_end)
        return await unless_gone(asyncio.wrap_future(called), receive)


async def hold_answer(request: Request, rooms: Rooms, key: str, count: int) -> Hold:
    """Hold room for an answer until it is sent.

    Args:
        request: whose answer it is.
        rooms: what all requests may hold.
        key: name of the caller's key.
        count: bytes that the answer will have; no more than there may be are waited for.

    Raises:
        QueueFull: there was no room in time.
        ClientDisconnect: the caller left.
    """
    room = get_record(request).resources.enter_context(rooms.answers.hold(key))
    count = min(count, rooms.most_answer)
    if not room.grow_now(count):
        await unless_gone(room.grow(count, rooms.patience), request.receive)
    return room


async def unless_gone(work: Awaitable[_Result], receive: Receive) -> _Result:
    """Wait for `work`; if the caller leaves, or the service ends, it is cancelled.

    Raises:
        ClientDisconnect: the caller left.
        PagevecError: what `receive` raised.
    """
    result = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        either: set[asyncio.Future[Any]] = {result, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        gone.result()
        raise ClientDisconnect
    finally:
        result.cancel()
        gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
