"""The HTTP contract without I/O: what a request holds, and what an answer says."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from pagevec.client.faults import WrongAnswer
from pagevec.errors import InvalidText
from pagevec.types import InputType, MultiVector
from pagevec.wire.decode import decode_npz
from pagevec.wire.quantize import Dtype

PATH = "/npz/embeddings"


@dataclass(frozen=True)
class Call:
    """What is asked for, of all inputs alike."""

    input_type: InputType
    dtype: Dtype = "float16"
    pool_factor: int = 1

    def body(self, inputs: Sequence[bytes]) -> bytes:
        """Return the JSON body of a request for `inputs`, each of them JSON already."""
        fields: dict[str, Any] = {"input_type": self.input_type}
        if self.dtype != "float32":
            fields["dtype"] = self.dtype
        if self.pool_factor != 1:
            fields["pool_factor"] = self.pool_factor
        head = json.dumps(fields).removesuffix("}").encode()
        return head + b', "inputs": [' + b",".join(inputs) + b"]}"


def headers(key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def text_input(text: str) -> bytes:
    """Return a text as an input in JSON.

    Raises:
        InvalidText: it is not valid Unicode.
    """
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidText(f"the text is not valid Unicode: {error.reason}") from None


def image_input(image: bytes) -> bytes:
    """Return an image file as an input in JSON."""
    return b'"' + base64.b64encode(image) + b'"'


def read_vectors(response: httpx.Response, expected: int) -> list[MultiVector]:
    """Return one multi-vector, float32 (vectors, dim), for each of the `expected` inputs.

    Raises:
        WrongAnswer: the reply is not an answer to this request.
    """
    try:
        vectors = decode_npz(response.content)
    except ValueError as error:
        raise WrongAnswer(f"{response.url} answered something else: {error}") from error
    if len(vectors) != expected:
        raise WrongAnswer(f"{response.url} answered {len(vectors)} of {expected} inputs")
    return vectors


def read_info(response: httpx.Response) -> dict[str, Any]:
    """Return what the service says of itself.

    Raises:
        WrongAnswer: the reply is not a JSON object.
    """
    try:
        content = response.json()
    except ValueError as error:
        raise WrongAnswer(f"{response.url} answered something else: {error}") from error
    if not isinstance(content, dict):
        raise WrongAnswer(f"{response.url} answered something else than a JSON object")
    return content
