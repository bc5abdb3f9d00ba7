"""The client without I/O: each call is a generator of steps, which `sync` and `aio` perform.

Requests are sent, polled, retried at other addresses and halved here; answers are put in order.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import httpx

from pagevec.client.faults import ServiceError, TimedOut, WrongAnswer, read_error, wrap_error
from pagevec.client.requests import (
    PATH,
    Call,
    Embedding,
    RequestOptions,
    halve,
    read_info,
    read_redirect,
    split_by_bytes,
)
from pagevec.client.retry import Budget, Endpoints, RetryPolicy, is_passing
from pagevec.errors import PagevecError
from pagevec.types import ModelInfo, Progress
from pagevec.wire.receipt import REQUEST_HEADER, make_token

log = logging.getLogger(__name__)

T = TypeVar("T")
Read = Callable[[httpx.Response], T]
_OK, _SEE_OTHER, _NOT_FOUND, _TOO_LARGE = 200, 303, 404, 413
_UNKNOWN = ModelInfo(model="")
_FRAME = 256  # bytes of a body besides its inputs, at most
# Modal itself holds each poll for up to 150 s; this keeps other services from a busy loop.
_POLL_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Send:
    """Send a request; its result is an `httpx.Response`, or an `httpx.RequestError` thrown in.

    Attributes:
        method: HTTP method.
        url: whole address.
        content: body, if there is one; in pieces, it is iterated over anew at each attempt.
        headers: besides those of every request.
        seconds: from now until the whole answer has to be there, at most.
        statuses: of answers that are wanted; any other one is an error.
        sending_seconds: what sending a long body may take, besides the patience.
    """

    method: str
    url: str
    content: bytes | Iterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = math.inf
    statuses: tuple[int, ...] = (_OK,)
    sending_seconds: float = 0.0


@dataclass(frozen=True)
class Sleep:
    """Wait for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call `run`, which keeps a processor busy; its result is what that returns."""

    run: Callable[[], Any]


@dataclass(frozen=True)
class Reconnect:
    """Send nothing more on the connections that are open: one of them brought a wrong answer."""


Step = Send | Sleep | Work | Reconnect
Exchange = Generator[Step, Any, T]
"""A call in steps: yields a step, is sent the step's result, and finally returns a `T`."""


class Core:
    """One service at one or more addresses.

    Args:
        endpoints: the addresses.
        policy: when a request is repeated.
        max_inputs: inputs in one request; the service's own limit counts too.
        max_bytes: bytes of one request; the service's own limit counts too.
        polling_seconds: how long the result of one attempt is polled for.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        policy: RetryPolicy,
        *,
        max_inputs: int,
        max_bytes: int,
        polling_seconds: float,
    ) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._max_inputs = max_inputs
        self._max_bytes = max_bytes
        self._polling_seconds = polling_seconds
        self._known: ModelInfo | None = None

    def info(self) -> Exchange[ModelInfo]:
        """Ask for the model and the limits. Raises what `embed` raises of the network."""
        return (yield from self.ask(Send("GET", "/info"), read_info))

    def known_info(self) -> Exchange[ModelInfo]:
        """Return what `info` answered first; nothing is known of a service without `/info`."""
        if self._known is None:
            try:
                self._known = yield from self.info()
            except ServiceError as error:
                if error.response.status_code != _NOT_FOUND:
                    raise
                self._known = _UNKNOWN
        return self._known

    def plan(
        self,
        options: RequestOptions,
        inputs: Sequence[Any],
        resize: bool,
        progress: Progress | None,
    ) -> Exchange[Call]:
        """Plan the requests for `inputs`, within the service's limits.

        Raises:
            TypeError: `inputs` is a single input.
        """
        if isinstance(inputs, (str, bytes)):
            raise TypeError(f"expected a list of inputs, got a single {type(inputs).__name__}")
        # A single text needs neither the limits nor the resizing.
        asks = len(inputs) > 1 or (resize and len(inputs) > 0)
        info = (yield from self.known_info()) if asks else _UNKNOWN
        max_inputs = min(self._max_inputs, info.limits.max_inputs or self._max_inputs)
        max_bytes = min(self._max_bytes, info.limits.max_body_bytes or self._max_bytes) - _FRAME
        resizing = info.resizing if resize else None
        return Call(options, inputs, resizing, max_inputs, max_bytes, info.dim, progress)

    def embed(self, call: Call, run: range) -> Exchange[list[Embedding]]:
        """Embed a run of the call's inputs; return one answer for each, in order.

        Where one input is to blame for an error, `index` is its position in the call.

        Raises:
            ServiceError: the service answered with an error.
            Unreachable: it could not be reached.
            TimedOut: it did not answer in time.
            UnsafeRedirect: it redirects to another origin.
            WrongAnswer: it answered something else.
            InvalidImage: an image cannot be read.
            InvalidText: a text is not valid Unicode.
        """
        encoded: list[bytes] = yield Work(partial(call.encode_run, run))
        answers: list[Embedding] = []
        try:
            for part in split_by_bytes(encoded, call.max_bytes):
                answers += yield from self._embed_part(call, encoded, part)
        except ServiceError as error:
            raise error if error.index is None else error.at(run.start + error.index) from None
        return answers

    def _embed_part(
        self, call: Call, encoded: Sequence[bytes], part: range
    ) -> Exchange[list[Embedding]]:
        """Embed `part` in one request, or in halves where that is too large (413)."""
        body = call.options.encode_body([encoded[position] for position in part])
        # One token for all attempts: whichever of them is answered, the answer is this request's.
        token = make_token()
        headers = {"Content-Type": "application/json", REQUEST_HEADER: token}
        read = partial(call.read_answer, expected=len(part), token=token)
        try:
            return (yield from self.ask(Send("POST", PATH, body, headers), read))
        except ServiceError as error:
            index = _blamed_index(error, part)
            if error.response.status_code != _TOO_LARGE or index is not None:
                raise error if index is None else error.at(index) from None
        first, second = halve(part)
        answers = yield from self._embed_part(call, encoded, first)
        return answers + (yield from self._embed_part(call, encoded, second))

    def ask(self, request: Send, read: Read[T]) -> Exchange[T]:
        """Ask until there is an answer, or the budget is spent.

        Args:
            request: `url` is a path.
            read: returns what the answer says, or raises `WrongAnswer`.

        Raises:
            PagevecError: what `embed` raises of the network, and what `read` raises.
        """
        budget = Budget(self._policy.allowing(request.sending_seconds), self._endpoints)
        while True:
            try:
                return (yield from self._ask_once(request, budget.attempt_seconds, read))
            except PagevecError as error:
                pause = budget.pause_after(error)
                # Quoted: the service, or whoever answers in its place, chooses these words.
                log.warning("asked again in %.1f s, after %a", pause, error.message)
            yield Sleep(pause)

    def _ask_once(self, request: Send, seconds: float, read: Read[T]) -> Exchange[T]:
        """Ask one address; set it aside if it fails in a way that may pass."""
        url = self._endpoints.pick()
        try:
            whole = replace(request, url=url + request.url, seconds=seconds)
            result = read((yield from self._send(whole)))
        except PagevecError as error:
            if isinstance(error, WrongAnswer):
                yield Reconnect()
            if is_passing(error):
                self._endpoints.set_aside(url, error.retry_after)
            raise
        self._endpoints.restore(url)
        return result

    def _send(self, request: Send) -> Exchange[httpx.Response]:
        try:
            until = time.monotonic() + min(request.seconds, self._polling_seconds)
            response: httpx.Response = yield request
            response = yield from self._poll(response, until)
        except httpx.RequestError as error:
            if isinstance(error, PagevecError):
                raise
            raise wrap_error(error, request.url) from error
        if response.status_code not in request.statuses:
            raise read_error(response)
        return response

    def _poll(self, response: httpx.Response, until: float) -> Exchange[httpx.Response]:
        """Follow 303 with GET: Modal answers so while a request that takes long is at work."""
        started = time.monotonic()
        while response.status_code == _SEE_OTHER:
            target = read_redirect(response)
            left = until - time.monotonic()
            if left <= 0:
                waited = time.monotonic() - started
                raise TimedOut(f"{response.url}: no result within {waited:.1f} s of polling")
            yield Sleep(_POLL_PAUSE_SECONDS)
            response = yield Send("GET", target, seconds=left)
        return response


def _blamed_index(error: ServiceError, part: range) -> int | None:
    """Return the position of the input that is named, or of the only one if it is too large."""
    if error.index is not None:
        return part.start + error.index
    alone = len(part) == 1 and error.response.status_code == _TOO_LARGE
    return part.start if alone else None
