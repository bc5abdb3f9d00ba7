"""Multi-vectors -> the bytes of an answer, in JSON or npz."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import orjson

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
    """Return the body of an answer: one multi-vector for each input, in order, ragged.

    Args:
        vectors: float32 arrays (vectors, dim).
        input_type: what the inputs are; npz answers carry it.
        dtype: how the vectors travel.
        format_: JSON or npz.
        tokens: for each input, one token for each vector; None where they were not asked for.
    """
    quantized = [quantize(one, dtype) for one in vectors]
    if format_ == "npz":
        return _npz(quantized, input_type, dtype, tokens)
    return _json(quantized, dtype, tokens)


def _json(quantized: Sequence[Quantized], dtype: Dtype, tokens: Tokens | None) -> bytes:
    # One call for each input: a single call would hold the interpreter's lock for all of them.
    parts = [b'{"embeddings":', _array(one.values for one in quantized)]
    if dtype != "float32":
        parts += [b',"dtype":', orjson.dumps(dtype)]
    if dtype == "int8":
        parts += [b',"scales":', _array(one.scales for one in quantized)]
    if tokens is not None:
        parts += [b',"tokens":', _array(tokens)]
    return b"".join([*parts, b"}"])


def _array(items: Iterable[object]) -> bytes:
    dumped = [orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY) for item in items]
    return b"[" + b",".join(dumped) + b"]"


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
    for index, of_input in enumerate(tokens or ()):
        arrays[f"tokens_{index}"] = np.array([token.text for token in of_input], dtype=np.str_)
        arrays[f"spans_{index}"] = _spans(of_input)
    file = BytesIO()
    np.savez(file, count=np.array(len(quantized)), input_type=np.array(input_type), **arrays)
    return file.getvalue()


def _spans(tokens: Sequence[Token]) -> Any:
    spans = [(-1, -1) if one.start is None else (one.start, one.end) for one in tokens]
    return np.array(spans, dtype=np.int32).reshape(-1, 2)
