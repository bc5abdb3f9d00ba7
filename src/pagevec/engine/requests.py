"""A request inside the engine: its inputs travel apart and are answered together."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

from pagevec.engine.api import Embedded, Timings
from pagevec.engine.backends.base import Prepared
from pagevec.errors import InternalError, PagevecError
from pagevec.types import MultiVector, Token


class Request:
    """Collects the multi-vectors of one request and resolves its future, with all or an error.

    Attributes:
        count: number of inputs.
        is_query: whether they are texts.
        pool_factor: see `Embedder`.
        caller: see `Embedder`.
        vector_bytes: see `Embedder`.
        future: the caller's.
    """

    def __init__(
        self,
        count: int,
        *,
        is_query: bool,
        pool_factor: int = 1,
        caller: str = "",
        vector_bytes: int = 0,
    ) -> None:
        self.count = count
        self.is_query = is_query
        self.pool_factor = pool_factor
        self.caller = caller
        self.vector_bytes = vector_bytes
        self.future: Future[Embedded] = Future()
        self._vectors: dict[int, MultiVector] = {}
        self._tokens: tuple[tuple[Token, ...], ...] = ()
        self._batch_sizes = [0] * count
        self._token_count = 0
        self._prepare = self._queue = self._forward = 0.0
        self._lock = threading.Lock()
        if not count:
            self.future.set_result(Embedded(vectors=[]))

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for more of it: it failed, or its caller left."""
        return self.future.done()

    @property
    def remaining(self) -> float:
        """Which part of its inputs is not done yet: 1 at the beginning, 0 at the end."""
        return 1 - len(self._vectors) / self.count if self.count else 0.0

    def add_prepare(self, seconds: float) -> None:
        """Add the duration of preparing one input."""
        with self._lock:
            self._prepare += seconds

    def add_forward(self, seconds: float) -> None:
        """Add the duration of one batch that some of its inputs were in."""
        with self._lock:
            self._forward += seconds

    def note_wait(self, seconds: float) -> None:
        """Note how long an input waited for its batch; the longest wait counts."""
        with self._lock:
            self._queue = max(self._queue, seconds)

    def set_tokens(self, tokens: Sequence[Sequence[Token]]) -> None:
        """Set the tokens of all texts, before any of them is delivered."""
        self._tokens = tuple(map(tuple, tokens))

    def deliver(
        self, index: int, vectors: MultiVector, *, token_count: int, batch_size: int
    ) -> None:
        """Add the multi-vector of one input; the last one resolves the future.

        Args:
            index: position of the input in the request.
            vectors: float32 (vectors, dim).
            token_count: length of its sequence.
            batch_size: number of inputs in its batch.
        """
        if self._tokens and len(self._tokens[index]) != len(vectors):
            tokens = len(self._tokens[index])
            self.fail(InternalError(f"{tokens} tokens for {len(vectors)} vectors"), index)
            return
        with self._lock:
            self._vectors[index] = vectors
            self._batch_sizes[index] = batch_size
            self._token_count += token_count
            complete = len(self._vectors) == self.count
        if complete:
            with suppress(InvalidStateError):  # the caller left meanwhile
                self.future.set_result(self._answer())

    def fail(self, error: BaseException, index: int | None = None) -> None:
        """Resolve the future with `error`, blaming the input at `index`, if one is to blame."""
        if not isinstance(error, PagevecError):
            fault = InternalError("the engine failed on this request", index=index)
            fault.__cause__ = error
            error = fault
        elif index is not None and error.index is None:
            error = error.at(index)
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _answer(self) -> Embedded:
        return Embedded(
            vectors=[self._vectors[index] for index in range(self.count)],
            token_count=self._token_count,
            timings=Timings(prepare=self._prepare, queue=self._queue, forward=self._forward),
            batch_sizes=tuple(self._batch_sizes),
            tokens=self._tokens,
        )


@dataclass(frozen=True, eq=False)
class Item:
    """One prepared input in the queue.

    Attributes:
        request: the request that it belongs to.
        index: its position in the request.
        prepared: what the backend made of it.
        since: when it joined the queue, by `time.perf_counter`.
        work: what it costs the model, in tokens of a short sequence; default: its tokens.
    """

    request: Request
    index: int
    prepared: Prepared
    since: float
    work: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "work", max(self.work, self.tokens))

    @property
    def is_query(self) -> bool:
        """Whether it is a text."""
        return self.request.is_query

    @property
    def tokens(self) -> int:
        """Length of its sequence."""
        return self.prepared.tokens

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.request.abandoned
