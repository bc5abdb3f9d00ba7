"""Multi-vectors -> the bytes of an answer, in JSON or npz."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pagevec.types import InputType, MultiVector, Token
from pagevec.wire.negotiation import WireFormat
from pagevec.wire.quantize import Dtype, Quantized, quantize

Tokens = Sequence[Sequence[Token]]


def encode(
    vectors: Sequence[MultiVector],
    input_type: InputType,
    dtype: Dtype,
    format_: WireFormat,
    tokens: Tokens | None = None,
) -> bytes:
    """Return the body of an answer in one piece; see `encode_pieces`."""
    return b"".join(encode_pieces(vectors, input_type, dtype, format_, tokens))


def encode_pieces(
    vectors: Sequence[MultiVector],
    input_type: InputType,
    dtype: Dtype,
    format_: WireFormat,
    tokens: Tokens | None = None,
) -> list[bytes]:
    """Return the body of an answer: one multi-vector for each input, in order, ragged.

    Args:
        vectors: float32 arrays (vectors, dim).
        input_type: what the inputs are; npz answers carry it.
        dtype: how the vectors travel.
        format_: JSON or npz.
        tokens: for each input, one token for each vector; None where they were not asked for.

    Returns:
        The body in pieces, which a large answer is better not copied from.
    """
    quantized = [quantize(one, dtype) for one in vectors]
    if format_ == "npz":
        return [_npz(quantized, input_type, dtype, tokens)]
    return _json(quantized, dtype, tokens)


def bytes_of_vector(dim: int, dtype: Dtype, format_: WireFormat, tokens: bool = False) -> int:
    """Return how many bytes one vector takes in an answer, about and rather too many.

    Args:
        dim: components of a vector.
        dtype: how the vectors travel.
        format_: JSON or npz.
        tokens: whether the token behind each vector travels with it.
    """
    text = _TOKEN_BYTES if tokens else 0
    if format_ == "npz":
        return text + ceil(dim * _NPZ_BYTES[dtype]) + 8
    return text + ceil(dim * _JSON_BYTES[dtype]) + 16


# Of one component. A float is 8 to 9 digits, a sign, a point, zeros and a comma: 12 bytes of a unit
# vector of 128 dimensions, 13 of one of 4,096, whose components are smaller.
_JSON_BYTES: dict[Dtype, float] = {"float32": 13.5, "float16": 13.5, "int8": 5, "binary": 4 / 8}
_NPZ_BYTES: dict[Dtype, float] = {"float32": 4, "float16": 2, "int8": 1, "binary": 1 / 8}
_TOKEN_BYTES = 80
# Dumping holds the interpreter's lock: no longer than for so many vectors at a time.
_ROWS = 256


def _json(quantized: Sequence[Quantized], dtype: Dtype, tokens: Tokens | None) -> list[bytes]:
    pieces = [b'{"embeddings":', *_array([_rows(one.values) for one in quantized])]
    if dtype != "float32":
        pieces += [b',"dtype":', orjson.dumps(dtype)]
    if dtype == "int8":
        pieces += [b',"scales":', *_array([[_dump(one.scales)] for one in quantized])]
    if (dim := _untold_dim(quantized)) is not None:
        pieces += [b',"dim":%d' % dim]
    if tokens is not None:
        pieces += [b',"tokens":', *_array([[_dump(one)] for one in tokens])]
    return [*pieces, b"}"]


def _array(items: Sequence[list[bytes]]) -> Iterator[bytes]:
    yield b"["
    for number, pieces in enumerate(items):
        if number:
            yield b","
        yield from pieces
    yield b"]"


def _rows(values: NDArray[Any]) -> list[bytes]:
    if len(values) <= _ROWS:
        return [_dump(values)]
    blocks = [_dump(values[start : start + _ROWS]) for start in range(0, len(values), _ROWS)]
    return list(_array([[block[1:-1]] for block in blocks]))


def _dump(item: object) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)


def _npz(
    quantized: Sequence[Quantized], input_type: InputType, dtype: Dtype, tokens: Tokens | None
) -> bytes:
    arrays: dict[str, Any] = {f"emb_{i}": one.values for i, one in enumerate(quantized)}
    arrays |= {
        f"scale_{index}": one.scales
        for index, one in enumerate(quantized)
        if one.scales is not None
    }
    if dtype != "float32":
        arrays["dtype"] = np.array(dtype)
    if (dim := _untold_dim(quantized)) is not None:
        arrays["dim"] = np.array(dim)
    for index, of_input in enumerate(tokens or ()):
        arrays[f"tokens_{index}"] = np.array([token.text for token in of_input], dtype=np.str_)
        arrays[f"spans_{index}"] = _spans(of_input)
    file = BytesIO()
    np.savez(file, count=np.array(len(quantized)), input_type=np.array(input_type), **arrays)
    return file.getvalue()


def _untold_dim(quantized: Sequence[Quantized]) -> int | None:
    """Return how many components binary vectors have, where their bytes could have more."""
    return next((one.dim for one in quantized if one.dim is not None and one.dim % 8), None)


def _spans(tokens: Sequence[Token]) -> Any:
    spans = [(-1, -1) if one.start is None else (one.start, one.end) for one in tokens]
    return np.array(spans, dtype=np.int32).reshape(-1, 2)
