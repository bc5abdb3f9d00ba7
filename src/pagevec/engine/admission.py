"""What the engine takes in: not more than can wait, nothing that cannot be done in time."""

import threading
from dataclasses import dataclass

from pagevec.engine.requests import Job
from pagevec.engine.speed import Speed
from pagevec.errors import QueueFull, TooManyInputs, TooMuchWork


@dataclass(frozen=True)
class _Load:
    is_query: bool
    inputs: int
    work: float
    pixels: int


class Admission:
    """Knows all work that was taken and is not done; refuses what is too much.

    Attributes:
        speed: what was measured so far.
    """

    def __init__(self, max_inputs: int, request_seconds: float, threads: int) -> None:
        self.speed = Speed()
        self._max_inputs = max_inputs
        self._request_seconds = request_seconds
        self._threads = threads
        self._taken: dict[Job, _Load] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> int:
        """Inputs taken and not done yet."""
        with self._lock:
            return sum(load.inputs for load in self._taken.values())

    def admit(self, job: Job, tokens: list[int], pixels: int = 0) -> None:
        """Take `job`, whose inputs have these lengths and pixels in all, until it is settled.

        Raises:
            TooManyInputs: more than may ever wait.
            QueueFull: too many inputs wait, or this single one would wait too long.
            TooMuchWork: at the measured speed it cannot be done within the time budget.
        """
        work = sum(self.speed.work(length) for length in tokens)
        load = _Load(job.is_query, len(tokens), work, pixels)
        with self._lock:
            self._refuse_a_full_queue(load)
            self._refuse_what_takes_too_long(load)
            self._taken[job] = load
        job.future.add_done_callback(lambda _: self._let_go(job))

    def _let_go(self, job: Job) -> None:
        with self._lock:
            self._taken.pop(job, None)

    def _refuse_a_full_queue(self, load: _Load) -> None:
        if load.inputs > self._max_inputs:
            raise TooManyInputs(
                f"{load.inputs} inputs, but only {self._max_inputs} may wait: send fewer"
            )
        waiting = sum(other.inputs for other in self._taken.values())
        if waiting + load.inputs > self._max_inputs:
            raise QueueFull(
                f"{waiting} inputs wait already, {self._max_inputs} may; try again later",
                retry_after=max(1.0, self._seconds_ahead(load)),
            )

    def _refuse_what_takes_too_long(self, load: _Load) -> None:
        own, ahead = self._seconds(load), self._seconds_ahead(load)
        if own + ahead <= self._request_seconds:
            return
        sentence = (
            f"at the measured speed this takes {own:.0f} s after {ahead:.0f} s of waiting; "
            f"a request may take {self._request_seconds:.0f} s"
        )
        if load.inputs == 1 and own <= self._request_seconds:
            raise QueueFull(f"{sentence}: try again later", retry_after=ahead)
        raise TooMuchWork(f"{sentence}: send fewer inputs in one request")

    def _seconds(self, load: _Load) -> float:
        # Pages are prepared while the model runs: the slower of the two decides.
        return max(
            self.speed.forward_seconds(load.is_query, load.work),
            self.speed.prepare_seconds(load.pixels, self._threads),
        )

    def _seconds_ahead(self, load: _Load) -> float:
        """Return the seconds of what goes before: queries wait for queries, pages for all."""
        others = self._taken.values()
        return sum(self._seconds(other) for other in others if other.is_query or not load.is_query)
