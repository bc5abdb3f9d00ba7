"""The bytes of an answer -> multi-vectors and tokens. Needs numpy only."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import cast

import numpy as np

from pagevec.types import MultiVector, Token
from pagevec.wire.npz import Npz
from pagevec.wire.quantize import Dtype, Quantized, dequantize


def decode_npz(body: bytes) -> list[MultiVector]:
    """Read the multi-vectors of an npz answer.

    Returns:
        For each input float32 (vectors, dim), whatever dtype they travelled in.

    Raises:
        ValueError: the body is not such an answer.
    """
    with _failing_as("an npz"), Npz(BytesIO(body)) as arrays:
        dtype = cast(Dtype, str(arrays["dtype"]) if "dtype" in arrays else "float32")
        dim = int(arrays["dim"]) if "dim" in arrays else None
        parts = [
            Quantized(
                arrays[f"emb_{index}"],
                arrays[f"scale_{index}"] if dtype == "int8" else None,
                dim,
            )
            for index in range(int(arrays["count"]))
        ]
        return [np.require(dequantize(part, dtype), requirements="W") for part in parts]


def decode_json(body: bytes) -> list[MultiVector]:
    """Read the multi-vectors of a JSON answer.

    Returns:
        For each input float32 (vectors, dim), whatever dtype they travelled in.

    Raises:
        ValueError: the body is not such an answer.
    """
    with _failing_as("a JSON"):
        content = json.loads(body)
        dtype: Dtype = content.get("dtype", "float32")
        kinds = {"int8": np.int8, "binary": np.uint8}
        values = [np.array(rows, kinds.get(dtype, np.float32)) for rows in content["embeddings"]]
        scales = [np.array(row, np.float32) for row in content.get("scales", [])]
        parts = [
            Quantized(rows, scales[index] if dtype == "int8" else None, content.get("dim"))
            for index, rows in enumerate(values)
        ]
        return [dequantize(part, dtype) for part in parts]


def decode_tokens(body: bytes) -> list[tuple[Token, ...]]:
    """Read the tokens of an npz answer to a request with `"tokens": true`.

    Returns:
        For each text one token for each of its vectors.

    Raises:
        ValueError: the body is not such an answer, or holds no tokens.
    """
    with _failing_as("an npz"), Npz(BytesIO(body)) as arrays:
        return [
            tuple(
                Token(str(text), *((None, None) if start < 0 else (int(start), int(end))))
                for text, (start, end) in zip(
                    arrays[f"tokens_{index}"], arrays[f"spans_{index}"], strict=True
                )
            )
            for index in range(int(arrays["count"]))
        ]


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(f"not {what} answer of this service: {error}") from error
