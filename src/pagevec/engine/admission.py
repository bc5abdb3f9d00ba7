"""Which requests are accepted: no more than may wait, and none that cannot be done in time."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from pagevec.engine.requests import Request
from pagevec.engine.scheduler import batch_tokens
from pagevec.errors import QueueFull, TooManyInputs, TooMuchWork

_OLD_WEIGHT = 0.8  # of the old estimate at each measurement, so that a few batches decide
_FULL = 0.25  # of the budget: smaller batches do not fill the device, and do not count
# Smaller pages do not count either: preparing them takes the time of the calls, not of the pixels.
_MIN_PIXELS = 500_000


@dataclass
class Throughput:
    """Estimates how long work will take, from batches that filled the device.

    Attributes:
        quadratic_crossover: see `BatchHints`.
        padded: see `BatchHints`.
    """

    quadratic_crossover: float = 32_768.0
    padded: bool = True
    _seconds_per_work: dict[bool, float] = field(default_factory=dict)
    _seconds_per_pixel: float = 0.0

    def work(self, tokens: int) -> float:
        """Return the work of one input, in tokens of a short sequence."""
        return tokens * (1 + tokens / self.quadratic_crossover)

    def learn_forward(
        self, is_query: bool, lengths: Sequence[int], budget: int, seconds: float
    ) -> None:
        """Learn from a forward pass, if its batch was large enough.

        Args:
            is_query: whether the inputs were texts.
            lengths: tokens of each input.
            budget: tokens of a full batch.
            seconds: what the pass took.
        """
        if batch_tokens(lengths, self.padded) < _FULL * budget:
            return
        computed = [max(lengths)] * len(lengths) if self.padded else lengths
        new = seconds / sum(map(self.work, computed))
        old = self._seconds_per_work.get(is_query, new)
        self._seconds_per_work[is_query] = _average(old, new)

    def learn_prepare(self, pixels: int, seconds: float) -> None:
        """Learn from the preparation of one page in one thread, if the page was large enough."""
        if pixels < _MIN_PIXELS:
            return
        new = seconds / pixels
        self._seconds_per_pixel = _average(self._seconds_per_pixel or new, new)

    def forward_seconds(self, is_query: bool, work: float) -> float:
        """Return the seconds that `work` takes on the device; 0 before the first measurement."""
        return work * self._seconds_per_work.get(is_query, 0.0)

    def prepare_seconds(self, pixels: int, threads: int) -> float:
        """Return the seconds that it takes `threads` to decode and resize `pixels` of pages."""
        return pixels * self._seconds_per_pixel / threads


def _average(old: float, new: float) -> float:
    return _OLD_WEIGHT * old + (1 - _OLD_WEIGHT) * new


@dataclass(frozen=True)
class _Load:
    is_query: bool
    inputs: int = 0
    work: float = 0.0
    pixels: int = 0


class Admission:
    """Keeps all unfinished requests, and refuses those that are too much."""

    def __init__(
        self, throughput: Throughput, max_inputs: int, request_seconds: float, threads: int
    ) -> None:
        """Begin without requests.

        Args:
            throughput: estimates how long a request will take.
            max_inputs: inputs that may wait at the same time.
            request_seconds: time budget of one request.
            threads: threads that prepare pages.
        """
        self._throughput = throughput
        self._max_inputs = max_inputs
        self._request_seconds = request_seconds
        self._threads = threads
        self._unfinished: dict[Request, _Load] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> int:
        """Number of inputs that were admitted and are not done yet."""
        with self._lock:
            return sum(load.inputs for load in self._unfinished.values())

    @property
    def unfinished(self) -> list[Request]:
        """All requests that are not done yet, admitted or not."""
        with self._lock:
            return list(self._unfinished)

    def register(self, request: Request) -> None:
        """Keep `request` until it is done; it counts as work only once it is admitted."""
        with self._lock:
            self._unfinished[request] = _Load(request.is_query)
        request.future.add_done_callback(lambda _: self._forget(request))

    def admit(self, request: Request, tokens: Sequence[int], pixels: int = 0) -> None:
        """Count the work of a registered request, unless it is too much.

        Args:
            request: the request.
            tokens: length of each input's sequence.
            pixels: pixels of all its pages.

        Raises:
            TooManyInputs: it has more inputs than may ever wait.
            QueueFull: too many inputs wait, or this single one would wait too long.
            TooMuchWork: at the measured throughput it cannot be done within the time budget.
        """
        work = sum(self._throughput.work(length) for length in tokens)
        load = _Load(request.is_query, len(tokens), work, pixels)
        with self._lock:
            self._refuse_full_queue(load)
            self._refuse_too_much_work(load)
            if request in self._unfinished:  # else its caller left meanwhile
                self._unfinished[request] = load

    def _forget(self, request: Request) -> None:
        with self._lock:
            self._unfinished.pop(request, None)

    def _refuse_full_queue(self, load: _Load) -> None:
        if load.inputs > self._max_inputs:
            raise TooManyInputs(
                f"{load.inputs} inputs, but only {self._max_inputs} may wait: send fewer"
            )
        waiting = sum(other.inputs for other in self._unfinished.values())
        if waiting + load.inputs > self._max_inputs:
            raise QueueFull(
                f"{waiting} inputs are waiting and {self._max_inputs} may; try again later",
                retry_after=max(1.0, self._seconds_ahead(load)),
            )

    def _refuse_too_much_work(self, load: _Load) -> None:
        own, ahead = self._seconds(load), self._seconds_ahead(load)
        if own + ahead <= self._request_seconds:
            return
        message = (
            f"at the measured speed this takes {own:.0f} s after {ahead:.0f} s of waiting; "
            f"a request may take {self._request_seconds:.0f} s"
        )
        if load.inputs == 1 and own <= self._request_seconds:
            raise QueueFull(f"{message}: try again later", retry_after=ahead)
        raise TooMuchWork(f"{message}: send fewer inputs in one request")

    def _seconds(self, load: _Load) -> float:
        # Pages are prepared while the model runs: the slower of the two decides.
        return max(
            self._throughput.forward_seconds(load.is_query, load.work),
            self._throughput.prepare_seconds(load.pixels, self._threads),
        )

    def _seconds_ahead(self, load: _Load) -> float:
        """Return the seconds of the work that goes first: queries for a query, else everything."""
        others = self._unfinished.values()
        return sum(self._seconds(other) for other in others if other.is_query or not load.is_query)
