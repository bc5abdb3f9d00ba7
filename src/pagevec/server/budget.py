"""The bytes that requests hold: one budget for all of them, shared fairly between callers.

Bytes are counted before they are read or made. Who finds no room waits, and does not read
meanwhile: TCP makes the sender wait too. A caller may take what leaves at least as much free as it
then holds, so that one that takes all it can get leaves half of the room to the others. Only the
eldest request of each caller may take any room that is free: requests whose length is not known
would else wait for each other.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pagevec.errors import QueueFull
from pagevec.settings import Settings

# What a small request holds is not worth the wait behind a large one: it has room of its own.
SMALL_BYTES = 1024 * 1024
SMALL_ROOM = 32 * SMALL_BYTES
_MOST_WAITING = 256  # requests of one caller


class Hold:
    """What one request holds of a budget."""

    def __init__(self, budget: "ByteBudget", caller: str) -> None:
        self._budget = budget
        self.caller = caller
        self.bytes = 0

    async def grow(self, count: int, seconds: float) -> None:
        """Take `count` bytes more, once there is room.

        Args:
            count: bytes.
            seconds: how long to wait at most.

        Raises:
            QueueFull: there was no room in time, or too many requests of this caller wait for it.
        """
        await self._budget.take(self, count, seconds)

    def grow_now(self, count: int) -> bool:
        """Take `count` bytes more if there is room without a wait; return whether there was."""
        return self._budget.take_now(self, count)

    def settle(self, count: int) -> None:
        """Hold `count` bytes from now on: what turned out to be needed, after an estimate."""
        self._budget.settle(self, count)


class Rooms:
    """What all requests of a service may hold: half of it for bodies, half for answers.

    Attributes:
        bodies: bytes of bodies.
        answers: bytes of answers.
        most_answer: bytes of one answer that are waited for at most.
        patience: seconds that a request waits for room.
    """

    def __init__(self, settings: Settings) -> None:
        self.most_answer = settings.held_bytes // 2
        self.bodies = ByteBudget(settings.held_bytes // 2)
        self.answers = ByteBudget(self.most_answer)
        self.patience = settings.request_seconds


_Waiting = tuple[Hold, int, "asyncio.Future[None]"]


class ByteBudget:
    """A number of bytes, and who holds how many of them. Used in one event loop."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held: Counter[str] = Counter()  # by caller, of requests that are not small
        self._holds: dict[Hold, None] = {}  # those that are not small, the eldest first
        self._small = 0  # held by small requests
        self._waiting: list[_Waiting] = []

    @property
    def held(self) -> int:
        """Bytes that are held at the moment."""
        return self._held.total() + self._small

    @contextmanager
    def hold(self, caller: str) -> Iterator[Hold]:
        """Hold bytes for `caller` until the block ends."""
        hold = Hold(self, caller)
        try:
            yield hold
        finally:
            self.settle(hold, 0)

    def take_now(self, hold: Hold, count: int) -> bool:
        """Give `count` bytes more to `hold` if nobody waits for them; return whether it did."""
        is_small = hold.bytes + count <= SMALL_BYTES
        if (self._waiting and not is_small) or not self._has_room(hold, count):
            return False
        self._set(hold, hold.bytes + count)
        return True

    async def take(self, hold: Hold, count: int, seconds: float) -> None:
        """Give `count` bytes more to `hold`; see `Hold.grow`.

        Raises:
            QueueFull: as in `Hold.grow`.
        """
        if self.take_now(hold, count):
            return
        if sum(other.caller == hold.caller for other, _, _ in self._waiting) >= _MOST_WAITING:
            raise QueueFull(
                f"{_MOST_WAITING} requests of this key wait for room already; try again later"
            )
        granted = asyncio.get_running_loop().create_future()
        entry = (hold, count, granted)
        self._waiting.append(entry)
        try:
            self._serve()
            async with asyncio.timeout(seconds):
                await granted
        except TimeoutError:
            raise QueueFull(
                f"there was no room for {count:,} bytes within {seconds:.0f} s; try again later"
            ) from None
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._serve()

    def settle(self, hold: Hold, count: int) -> None:
        """Let `hold` hold `count` bytes, more or less than before."""
        self._set(hold, count)
        self._serve()

    def _set(self, hold: Hold, count: int) -> None:
        self._count(hold, -1)
        hold.bytes = count
        self._count(hold, 1)

    def _count(self, hold: Hold, sign: int) -> None:
        if hold.bytes <= SMALL_BYTES:
            self._small += sign * hold.bytes
            self._holds.pop(hold, None)
            return
        self._holds.setdefault(hold)
        self._held[hold.caller] += sign * hold.bytes
        if not self._held[hold.caller]:
            del self._held[hold.caller]

    def _serve(self) -> None:
        """Give room to those who wait: small requests first, then the callers that hold least."""
        while (entry := self._next()) is not None:
            self._waiting.remove(entry)
            hold, count, granted = entry
            if not granted.done():
                granted.set_result(None)
                self._set(hold, hold.bytes + count)

    def _next(self) -> _Waiting | None:
        for entry in sorted(self._waiting, key=self._rank):  # a stable order
            hold, count, _ = entry
            if self._has_room(hold, count):
                return entry
            if hold.bytes + count > SMALL_BYTES and count > self._free:
                return None  # it is this one's turn: others must not overtake it for ever
        return None

    def _rank(self, entry: _Waiting) -> tuple[bool, int]:
        hold, count, _ = entry
        return hold.bytes + count > SMALL_BYTES, self._held[hold.caller]

    @property
    def _free(self) -> int:
        return self._total - self._held.total()

    def _has_room(self, hold: Hold, count: int) -> bool:
        after = hold.bytes + count
        if after <= SMALL_BYTES:
            return self._small + count <= SMALL_ROOM
        # What was small so far moves over to the large ones.
        new = after if hold.bytes <= SMALL_BYTES else count
        if new > self._free:
            return False
        mine = self._held[hold.caller]
        return mine + new <= self._free - new or self._eldest(hold.caller) in (None, hold)

    def _eldest(self, caller: str) -> Hold | None:
        """Return the request of `caller` that may always go on, so that some of its requests do."""
        return next((hold for hold in self._holds if hold.caller == caller), None)
