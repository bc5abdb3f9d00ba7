"""What one call sends and gets back: request bodies, how they are split, answers. No I/O here."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import httpx
import numpy as np

from pagevec.client.faults import ForeignAnswer, UnsafeRedirect, WrongAnswer, without_key
from pagevec.client.images import image_file
from pagevec.errors import InvalidText, PagevecError
from pagevec.grid import PageResizing
from pagevec.types import InputType, ModelInfo, MultiVector, Progress, Token
from pagevec.wire.decode import decode_npz, decode_tokens
from pagevec.wire.quantize import Dtype, int8_drift
from pagevec.wire.receipt import ANSWER_HEADER, receipt

T = TypeVar("T")

PATH = "/npz/embeddings"
# What the service assumes. Older services refuse fields that they do not know, so these are left
# out of the body.
_DEFAULTS = {"dtype": "float32", "pool_factor": 1, "tokens": False}
_UNIT_TOLERANCE = 2e-2  # of the length of a vector
_PORTS = {"http": 80, "https": 443}


class Embedding(NamedTuple):
    """The answer for one input.

    Attributes:
        vectors: float32 (vectors, dim).
        tokens: one token for each vector; empty where they were not asked for.
    """

    vectors: MultiVector
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class RequestOptions:
    """What a request asks for, besides its inputs.

    Attributes:
        input_type: kind of all inputs.
        dtype: data type of the vectors on the wire.
        pool_factor: merges similar vectors until about 1 / `pool_factor` are left.
        tokens: whether the answer shall hold the token behind each vector of a text.
    """

    input_type: InputType
    dtype: Dtype = "float16"
    pool_factor: int = 1
    tokens: bool = False

    def encode_body(self, inputs: Sequence[bytes]) -> bytes:
        """Return the JSON body of a request for `inputs`, each of them encoded as JSON already."""
        options = vars(self).items()
        fields = {name: value for name, value in options if _DEFAULTS.get(name) != value}
        head = json.dumps(fields).removesuffix("}").encode()
        return head + b', "inputs": [' + b",".join(inputs) + b"]}"

    def read_answer(
        self, response: httpx.Response, *, expected: int, token: str, dim: int | None
    ) -> list[Embedding]:
        """Return the answer for each of the `expected` inputs, in order.

        Args:
            response: a 200.
            expected: inputs of the request.
            token: the request's own; an answer without any is judged by its shape alone.
            dim: components of a vector, where they are known.

        Raises:
            ForeignAnswer: the response answers another request.
            WrongAnswer: the response does not answer this request.
        """
        found = response.headers.get(ANSWER_HEADER)
        if found not in (None, receipt(token, self.input_type, expected)):
            raise ForeignAnswer(
                f"{response.url}: this is the answer to another request: two processes, or a "
                "proxy, have mixed up their connections"
            )
        try:
            vectors = decode_npz(response.content)
            tokens = decode_tokens(response.content) if self.tokens else [()] * len(vectors)
        except ValueError as error:
            raise _unexpected(response, error) from None
        if len(vectors) != expected:
            raise WrongAnswer(f"{response.url}: {len(vectors)} answers to {expected} inputs")
        if fault := _fault_of(vectors, dim, self.dtype):
            raise WrongAnswer(f"{response.url}: {fault}")
        if self.tokens and list(map(len, tokens)) != list(map(len, vectors)):
            raise WrongAnswer(f"{response.url}: the answer has more or fewer tokens than vectors")
        return list(map(Embedding, vectors, tokens))


@dataclass
class Call:
    """All inputs of one call of a client, and the answers so far.

    Attributes:
        options: what its requests ask for.
        inputs: texts or images, as the caller gave them.
        resizing: how the model resizes pages; None where images are sent as they are.
        max_inputs: inputs in one request.
        max_bytes: bytes of the encoded inputs in one request.
        dim: components of each vector; None where it is not known.
        progress: called with (answered, all) after each request.
    """

    options: RequestOptions
    inputs: Sequence[Any]
    resizing: PageResizing | None
    max_inputs: int
    max_bytes: int
    dim: int | None = None
    progress: Progress | None = None
    _answers: dict[int, Embedding] = field(default_factory=dict, init=False)

    @property
    def runs(self) -> list[range]:
        """The positions of the inputs, in runs that may be embedded in any order."""
        return split_by_count(len(self.inputs), self.max_inputs)

    def encode_run(self, run: range) -> list[bytes]:
        """Return the inputs of a run as JSON.

        Raises:
            InvalidImage: an image cannot be read; `index` is its position.
            InvalidText: a text is not valid Unicode; `index` is its position.
        """
        return [self._encode(index) for index in run]

    def read_answer(
        self, response: httpx.Response, *, expected: int, token: str
    ) -> list[Embedding]:
        """Return and raise what the options' `read_answer` does."""
        return self.options.read_answer(response, expected=expected, token=token, dim=self.dim)

    def add(self, run: range, answers: Sequence[Embedding]) -> None:
        """Record the answers for a run, and report progress."""
        self._answers.update(zip(run, answers, strict=True))
        if self.progress is not None:
            self.progress(len(self._answers), len(self.inputs))

    def result(self) -> list[Embedding]:
        """Return one answer for each input, in order, once all runs are added."""
        return [self._answers[index] for index in range(len(self.inputs))]

    def _encode(self, index: int) -> bytes:
        one = self.inputs[index]
        try:
            if self.options.input_type == "text":
                return _encode_text(one)
            return b'"' + base64.b64encode(image_file(one, self.resizing)) + b'"'
        except PagevecError as error:
            raise error.at(index) from error.__cause__


def split_by_count(total: int, most: int) -> list[range]:
    """Return the positions 0 to `total` - 1 in runs of at most `most`."""
    return [range(first, min(first + most, total)) for first in range(0, total, most)]


def split_by_bytes(inputs: Sequence[bytes], most: int) -> Iterator[range]:
    """Yield runs of positions whose inputs have at most `most` bytes in all, commas included.

    A longer input gets a run of its own: the service decides whether it is too long.
    """
    first, size = 0, 0
    for position, one in enumerate(inputs):
        if position > first and size + len(one) + 1 > most:
            yield range(first, position)
            first, size = position, 0
        size += len(one) + 1
    if inputs:
        yield range(first, len(inputs))


def halve(run: range) -> tuple[range, range]:
    """Return the first and the second half of a run of two or more."""
    middle = run.start + len(run) // 2
    return range(run.start, middle), range(middle, run.stop)


def read_info(response: httpx.Response) -> ModelInfo:
    """Return what `GET /info` answers.

    Raises:
        WrongAnswer: the response does not describe a model.
    """
    return json_reader(ModelInfo.from_json)(response)


def json_reader(read: Callable[[Any], T]) -> Callable[[httpx.Response], T]:
    """Return what reads an answer in JSON: it raises `WrongAnswer` where `read` does not get on.

    Args:
        read: makes what is wanted of the JSON value.
    """

    def read_answer(response: httpx.Response) -> T:
        try:
            return read(response.json())
        except KeyError as error:
            raise _unexpected(response, ValueError(f"{error} is missing")) from None
        except Exception as error:  # whatever it is, the answer led to it
            raise _unexpected(response, error) from None

    return read_answer


def read_redirect(response: httpx.Response) -> str:
    """Return the address to which a 303 redirects.

    Raises:
        UnsafeRedirect: it has another scheme, host or port, or cannot be read.
    """
    try:
        target = response.url.join(response.headers.get("location", ""))
    except httpx.InvalidURL as error:
        raise UnsafeRedirect(f"{response.url} redirects to an invalid address: {error}") from None
    if _origin(target) != _origin(response.url):
        origin = f"{target.scheme}://{target.netloc.decode()}"
        raise UnsafeRedirect(f"{response.url} redirects to another origin, {origin}")
    # httpx would send a user name in the address in place of the key.
    return str(target.copy_with(userinfo=b""))


def _unexpected(response: httpx.Response, error: Exception) -> WrongAnswer:
    reason = without_key(str(error), response)
    return WrongAnswer(f"{response.url}: unexpected answer: {reason}")


def _fault_of(vectors: Sequence[MultiVector], dim: int | None, dtype: Dtype) -> str | None:
    """Return what shows that these are no multi-vectors of one model, if anything does."""
    dims = {one.shape[1] for one in vectors} | ({dim} if dim else set())
    if len(dims) > 1:
        return f"vectors of {' and '.join(map(str, sorted(dims)))} components in one answer"
    for one in vectors:
        # A component that is not finite makes the length of its vector so.
        lengths = np.linalg.norm(one, axis=1)
        drift = int8_drift(one.shape[1]) if dtype == "int8" else 0.0
        if not (np.abs(lengths - 1) <= max(_UNIT_TOLERANCE, drift)).all():
            return "a vector has not the length 1"
    return None


def _encode_text(text: str) -> bytes:
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidText(f"the text is not valid Unicode: {error.reason}") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)
