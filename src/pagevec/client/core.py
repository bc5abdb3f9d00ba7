"""What both clients do, as exchanges without I/O: ask, try again, halve, put in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import httpx

from pagevec.client._protocol import (
    PATH,
    Call,
    image_input,
    read_info,
    read_vectors,
    text_input,
)
from pagevec.client.endpoints import Endpoints
from pagevec.client.faults import ServiceError, fault_from, fault_of
from pagevec.client.images import image_file
from pagevec.client.job import Job, Progress
from pagevec.client.polling import settled
from pagevec.client.retry import Policy, is_passing, retried
from pagevec.client.splitting import by_bytes, halves
from pagevec.client.steps import Exchange, Send, Work
from pagevec.errors import PagevecError
from pagevec.grid import PageResizing
from pagevec.types import MultiVector

T = TypeVar("T")
Read = Callable[[httpx.Response], T]
_OK, _NOT_FOUND, _TOO_LARGE = 200, 404, 413
_FRAME = 256  # bytes of a body besides its inputs, at most


@dataclass(frozen=True)
class Sizes:
    """How large requests are: inputs and bytes in each, and seconds for a result by polling."""

    inputs: int
    bytes: int
    polling: float


class Core:
    """One service at one or more addresses."""

    def __init__(self, endpoints: Endpoints, policy: Policy, sizes: Sizes) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._sizes = sizes
        self._info: dict[str, Any] | None = None

    def info(self) -> Exchange[dict[str, Any]]:
        """Ask what the service says of itself. Raises as `embed` does."""
        return (yield from self._ask("GET", "/info", None, read_info))

    def job(
        self, call: Call, inputs: Sequence[Any], resize: bool, progress: Progress | None
    ) -> Exchange[Job]:
        """Plan the requests for `inputs`, within the service's limits."""
        many = len(inputs) > 1
        info = (yield from self._known_info()) if many or (resize and inputs) else {}
        limits = info.get("limits") or {}
        most = min(self._sizes.inputs, limits.get("max_inputs", self._sizes.inputs))
        room = min(self._sizes.bytes, limits.get("max_body_bytes", self._sizes.bytes)) - _FRAME
        resizing = _resizing(info) if resize else None
        return Job(call, inputs, resizing, most, room, progress)

    def embed(self, job: Job, run: range) -> Exchange[list[MultiVector]]:
        """Embed a run of the job's inputs; the vectors are in order, one array for each.

        Raises:
            ServiceError: what the service answered; Unreachable, TimedOut, UnsafeRedirect,
            WrongAnswer: it gave no answer that counts; InvalidImage, InvalidText: an input that
            cannot be sent. Where one input is to blame, `index` is its position in the job.
        """
        encoded: list[bytes] = yield Work(partial(_encoded, job, run))
        vectors: list[MultiVector] = []
        try:
            for part in by_bytes(encoded, job.room):
                vectors += yield from self._halving(job.call, encoded, part)
        except ServiceError as error:
            raise error if error.index is None else error.at(run.start + error.index) from None
        return vectors

    def _halving(
        self, call: Call, encoded: Sequence[bytes], run: range
    ) -> Exchange[list[MultiVector]]:
        """Embed `run` in one request, or in halves where that is too large (413)."""
        body = call.body([encoded[position] for position in run])
        read = partial(read_vectors, expected=len(run))
        try:
            return (yield from self._ask("POST", PATH, body, read))
        except ServiceError as error:
            index = _index(error, run)
            if error.response.status_code != _TOO_LARGE or index is not None:
                raise error if index is None else error.at(index) from None
        first, second = halves(run)
        vectors = yield from self._halving(call, encoded, first)
        return vectors + (yield from self._halving(call, encoded, second))

    def _known_info(self) -> Exchange[dict[str, Any]]:
        if self._info is None:
            try:
                self._info = yield from self.info()
            except ServiceError as error:
                if error.response.status_code != _NOT_FOUND:
                    raise
                self._info = {}  # another service with this contract
        return self._info

    def _ask(self, method: str, path: str, body: bytes | None, read: Read[T]) -> Exchange[T]:
        ask = partial(self._try, method, path, body, read)
        return (yield from retried(ask, self._policy, self._endpoints))

    def _try(self, method: str, path: str, body: bytes | None, read: Read[T]) -> Exchange[T]:
        """Ask one endpoint once; set it aside if that fails in a way that may pass."""
        url = self._endpoints.pick()
        try:
            result = read((yield from self._answer(Send(method, url + path, body))))
        except PagevecError as error:
            if is_passing(error):
                self._endpoints.set_aside(url, error.retry_after)
            raise
        self._endpoints.restore(url)
        return result

    def _answer(self, request: Send) -> Exchange[httpx.Response]:
        try:
            response: httpx.Response = yield request
            response = yield from settled(response, self._sizes.polling)
        except httpx.RequestError as error:
            if isinstance(error, PagevecError):
                raise
            raise fault_from(error, request.url) from error
        if response.status_code != _OK:
            raise fault_of(response)
        return response


def _resizing(info: dict[str, Any]) -> PageResizing | None:
    told = info.get("resizing")
    # By name: a newer service may tell more.
    return (
        PageResizing(**{one.name: told[one.name] for one in fields(PageResizing)}) if told else None
    )


def _index(error: ServiceError, run: range) -> int | None:
    """Return which input is to blame: the one that is named, or the only one that is too large."""
    if error.index is not None:
        return run.start + error.index
    alone = len(run) == 1 and error.response.status_code == _TOO_LARGE
    return run.start if alone else None


def _encoded(job: Job, run: range) -> list[bytes]:
    return [_encoded_one(job, index) for index in run]


def _encoded_one(job: Job, index: int) -> bytes:
    try:
        if job.call.input_type == "text":
            return text_input(job.inputs[index])
        return image_input(image_file(job.inputs[index], job.resizing))
    except PagevecError as error:
        raise error.at(index) from error.__cause__
