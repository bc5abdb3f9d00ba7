"""A request inside the engine: its inputs part and come back in order, or not at all."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

from pagevec.engine.api import Embedded, Timings
from pagevec.engine.backends.preprocess import Prepared
from pagevec.errors import InternalError, PagevecError
from pagevec.images import EncodedImage
from pagevec.types import MultiVector


class Job:
    """Collects the multi-vectors of one request; settles its future once, with all or an error."""

    def __init__(self, inputs: Sequence[str] | Sequence[EncodedImage], pool_factor: int) -> None:
        self.inputs = inputs
        self.pool_factor = pool_factor
        self.is_query = bool(inputs) and isinstance(inputs[0], str)
        self.future: Future[Embedded] = Future()
        self._vectors: dict[int, MultiVector] = {}
        self._batch_sizes = [0] * len(inputs)
        self._tokens = 0
        self._prepare = self._queue = self._forward = 0.0
        self._lock = threading.Lock()
        if not inputs:
            self.future.set_result(Embedded(vectors=[]))

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for more: it failed, or its caller left."""
        return self.future.done()

    def add_prepare(self, seconds: float) -> None:
        """Count the seconds of one input's preparation."""
        with self._lock:
            self._prepare += seconds

    def add_forward(self, seconds: float) -> None:
        """Count the seconds of one batch that inputs of this request were in."""
        with self._lock:
            self._forward += seconds

    def deliver(self, index: int, vectors: MultiVector, *, tokens: int, batch_size: int) -> None:
        """Take the multi-vector of the input at `index`; the last one settles the future."""
        with self._lock:
            self._vectors[index] = vectors
            self._batch_sizes[index] = batch_size
            self._tokens += tokens
            complete = len(self._vectors) == len(self.inputs)
        if complete:
            with suppress(InvalidStateError):  # the caller left meanwhile
                self.future.set_result(self._result())

    def fail(self, error: BaseException, index: int | None = None) -> None:
        """Settle the future with `error`, blaming the input at `index` where there is one."""
        if not isinstance(error, PagevecError):
            fault = InternalError("the engine failed on this request", index=index)
            fault.__cause__ = error
            error = fault
        elif index is not None and error.index is None:
            error = error.at(index)
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def waited(self, seconds: float) -> None:
        """Note how long an input waited for its batch; the longest wait counts."""
        with self._lock:
            self._queue = max(self._queue, seconds)

    def _result(self) -> Embedded:
        return Embedded(
            vectors=[self._vectors[index] for index in range(len(self.inputs))],
            tokens=self._tokens,
            timings=Timings(prepare=self._prepare, queue=self._queue, forward=self._forward),
            batch_sizes=tuple(self._batch_sizes),
        )


@dataclass(frozen=True)
class Item:
    """One prepared input of a job, waiting for its batch (an Entry of the scheduler)."""

    job: Job
    index: int
    prepared: Prepared
    since: float

    @property
    def is_query(self) -> bool:
        """Whether it is a text."""
        return self.job.is_query

    @property
    def tokens(self) -> int:
        """Its sequence length."""
        return self.prepared.tokens

    @property
    def abandoned(self) -> bool:
        """Whether its request failed or its caller left."""
        return self.job.abandoned
