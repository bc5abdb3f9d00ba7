"""Multi-vectors -> the bytes of an answer, in JSON or npz."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import orjson

from pagevec.types import InputType, MultiVector
from pagevec.wire.negotiation import Format
from pagevec.wire.quantize import Dtype, Quantized, quantize


def encode(
    vectors: Sequence[MultiVector], input_type: InputType, dtype: Dtype, format_: Format
) -> bytes:
    """Return the body of an answer: one multi-vector for each input, in order, ragged."""
    quantized = [quantize(one, dtype) for one in vectors]
    if format_ == "npz":
        return _npz(quantized, input_type, dtype)
    return _json(quantized, dtype)


def _json(quantized: Sequence[Quantized], dtype: Dtype) -> bytes:
    # One call for each input: a single call would hold the interpreter's lock for all of them.
    parts = [b'{"embeddings":', _array(one.values for one in quantized)]
    if dtype != "float32":
        parts += [b',"dtype":', orjson.dumps(dtype)]
    if dtype == "int8":
        parts += [b',"scales":', _array(one.scales for one in quantized)]
    return b"".join([*parts, b"}"])


def _array(items: Iterable[object]) -> bytes:
    dumped = [orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY) for item in items]
    return b"[" + b",".join(dumped) + b"]"


def _npz(quantized: Sequence[Quantized], input_type: InputType, dtype: Dtype) -> bytes:
    arrays: dict[str, Any] = {f"emb_{i}": one.values for i, one in enumerate(quantized)}
    arrays |= {
        f"scale_{index}": one.scales
        for index, one in enumerate(quantized)
        if one.scales is not None
    }
    if dtype != "float32":
        arrays["dtype"] = np.array(dtype)
    file = BytesIO()
    np.savez(file, count=np.array(len(quantized)), input_type=np.array(input_type), **arrays)
    return file.getvalue()
