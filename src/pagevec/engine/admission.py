"""Which requests are accepted: as many as may wait, none that takes too long or too much memory."""

import threading
from collections import defaultdict
from dataclasses import dataclass

from pagevec.engine.requests import Request
from pagevec.errors import QueueFull, TooManyInputs, TooMuchWork

# What one caller may have waiting, as a multiple of what is left for all others.
_SHARE = 8
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Budgets:
    """What the engine takes on at most.

    Attributes:
        queued_inputs: inputs that wait at the same time.
        request_seconds: of one request, waiting included.
        answer_bytes: of one answer.
        working_bytes: that decoding pictures and pooling hold at the same time.
    """

    queued_inputs: int = 10_000
    request_seconds: float = 120.0
    answer_bytes: int = 512 * _MIB
    working_bytes: int = 2048 * _MIB


@dataclass(frozen=True)
class Price:
    """What a request costs, estimated before it is done.

    Attributes:
        inputs: number of its inputs.
        prepare: seconds to decode its pages, or to tokenize its texts.
        forward: seconds of the model, with the padding of its batches.
        pooling: seconds to merge its vectors.
        answer_bytes: bytes of its answer.
        working_bytes: bytes that decoding or pooling holds for the one input that needs most.
        neediest: position of that input.
    """

    inputs: int
    prepare: float = 0.0
    forward: float = 0.0
    pooling: float = 0.0
    answer_bytes: int = 0
    working_bytes: int = 0
    neediest: int = 0

    @property
    def alone(self) -> float:
        """Seconds from beginning to end where nothing else is done."""
        return self.prepare + self.forward + self.pooling

    @property
    def in_line(self) -> float:
        """Seconds by which it delays what is behind it: its stages overlap with those of others."""
        return max(self.prepare, self.forward, self.pooling)


class Admission:
    """Keeps all unfinished requests, and refuses those that are too much.

    Callers take turns, so that the backlog of one hardly counts for the request of another.
    """

    def __init__(self, budgets: Budgets) -> None:
        """Begin without requests."""
        self._budgets = budgets
        self._unfinished: dict[Request, Price] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> int:
        """Number of inputs that were admitted and are not done yet."""
        with self._lock:
            return self._waiting()

    @property
    def unfinished(self) -> list[Request]:
        """All requests that are not done yet, admitted or not."""
        with self._lock:
            return list(self._unfinished)

    def register(self, request: Request) -> None:
        """Keep `request` until it is done; it counts as work only once it is admitted."""
        with self._lock:
            self._unfinished[request] = Price(0)
        request.future.add_done_callback(lambda _: self._forget(request))

    def admit(self, request: Request, price: Price) -> None:
        """Count the work of a registered request, unless it is too much.

        May be called again, when the price is known better.

        Raises:
            TooManyInputs: it has more inputs than may ever wait.
            QueueFull: too many inputs wait, or this single one would wait too long.
            TooMuchWork: it cannot be done within the time budget, or takes too many bytes.
        """
        self._refuse_too_many_bytes(price)
        with self._lock:
            known = self._unfinished.get(request)
            if known is None or not known.inputs:  # else it is in the queue already
                self._refuse_full_queue(request, price)
            self._refuse_too_much_work(request, price)
            if request in self._unfinished:  # else its caller left meanwhile
                self._unfinished[request] = price

    def _forget(self, request: Request) -> None:
        with self._lock:
            self._unfinished.pop(request, None)

    def _refuse_too_many_bytes(self, price: Price) -> None:
        budgets = self._budgets
        if price.answer_bytes > budgets.answer_bytes:
            raise TooMuchWork(
                f"the answer would take {price.answer_bytes:,} bytes, and "
                f"{budgets.answer_bytes:,} are allowed: send fewer inputs, or ask for npz, "
                "a smaller dtype or a larger pool_factor"
            )
        if price.working_bytes > budgets.working_bytes:
            raise TooMuchWork(
                f"this input takes {price.working_bytes:,} bytes to decode or to pool, and "
                f"{budgets.working_bytes:,} are allowed: send a smaller one, or ask for it "
                "without pool_factor",
                index=price.neediest,
            )

    def _refuse_full_queue(self, request: Request, price: Price) -> None:
        most = self._budgets.queued_inputs
        if price.inputs > most:
            raise TooManyInputs(f"{price.inputs} inputs, but only {most} may wait: send fewer")
        own = self._waiting(request.caller, but=request)
        waiting = self._waiting(but=request)
        fits = waiting + price.inputs <= most and own <= _SHARE * (most - waiting)
        # Who has nothing waiting is never refused for what others have.
        if own and not fits:
            raise QueueFull(
                f"{waiting} inputs are waiting, {own} of them yours, and {most} may; "
                "try again later",
                retry_after=max(1.0, self._seconds_ahead(request, price)),
            )

    def _waiting(self, caller: str | None = None, but: Request | None = None) -> int:
        """Return the inputs that wait: those of `caller`, or of all, without those of `but`."""
        return sum(
            price.inputs
            for request, price in self._unfinished.items()
            if caller in (None, request.caller) and request is not but
        )

    def _refuse_too_much_work(self, request: Request, price: Price) -> None:
        own, ahead = price.alone, self._seconds_ahead(request, price)
        allowed = self._budgets.request_seconds
        if own + ahead <= allowed:
            return
        message = (
            f"at the measured speed this takes {own:.0f} s after {ahead:.0f} s of waiting; "
            f"a request may take {allowed:.0f} s"
        )
        if price.inputs == 1 and own <= allowed:
            raise QueueFull(f"{message}: try again later", retry_after=ahead)
        raise TooMuchWork(f"{message}: send fewer inputs in one request")

    def _seconds_ahead(self, request: Request, price: Price) -> float:
        """Return the seconds of the work that goes first.

        That is what the same caller asked for before; of each other caller as much as of this one,
        at most, since they take turns; and of the other kind as much as of this one, at most.
        """
        backlogs: dict[bool, defaultdict[str, float]] = {
            True: defaultdict(float),
            False: defaultdict(float),
        }
        came_later = False
        for other, cost in self._unfinished.items():  # in the order of their coming
            came_later |= other is request
            if not (came_later and other.caller == request.caller):
                backlogs[other.is_query][other.caller] += cost.in_line * other.remaining
        same, other_kind = backlogs[request.is_query], backlogs[not request.is_query]
        mine = same.pop(request.caller, 0.0)
        turn = mine + price.in_line
        ahead = mine + sum(min(theirs, turn) for theirs in same.values())
        return ahead + min(sum(other_kind.values()), ahead + price.in_line)
