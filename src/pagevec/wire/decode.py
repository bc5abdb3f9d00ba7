"""The bytes of an answer -> multi-vectors. Needs numpy only."""

import json
from io import BytesIO
from typing import cast

import numpy as np

from pagevec.types import MultiVector
from pagevec.wire.quantize import Dtype, Quantized, dequantize


def decode_npz(body: bytes) -> list[MultiVector]:
    """Read an npz answer; float32 vectors (n, dim), whatever dtype they travelled in.

    Raises:
        ValueError: the body is not such an answer.
    """
    try:
        with np.load(BytesIO(body), allow_pickle=False) as arrays:
            count = int(arrays["count"])
            dtype = cast(Dtype, str(arrays["dtype"]) if "dtype" in arrays else "float32")
            parts = [
                Quantized(
                    arrays[f"emb_{index}"],
                    arrays[f"scale_{index}"] if dtype == "int8" else None,
                )
                for index in range(count)
            ]
            return [dequantize(part, dtype) for part in parts]
    except Exception as error:
        raise ValueError(f"not an npz answer of this service: {error}") from error


def decode_json(body: bytes) -> list[MultiVector]:
    """Read a JSON answer; float32 vectors (n, dim), whatever dtype they travelled in.

    Raises:
        ValueError: the body is not such an answer.
    """
    try:
        content = json.loads(body)
        dtype: Dtype = content.get("dtype", "float32")
        kinds = {"int8": np.int8, "binary": np.uint8}
        values = [np.array(rows, kinds.get(dtype, np.float32)) for rows in content["embeddings"]]
        scales = [np.array(row, np.float32) for row in content.get("scales", [])]
        parts = [
            Quantized(rows, scales[index] if dtype == "int8" else None)
            for index, rows in enumerate(values)
        ]
        return [dequantize(part, dtype) for part in parts]
    except Exception as error:
        raise ValueError(f"not a JSON answer of this service: {error}") from error
