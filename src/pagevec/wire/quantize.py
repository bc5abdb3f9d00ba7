"""Vectors in fewer bytes: float16, int8 with a scale for each vector, or only their signs.

Binary vectors hold eight signs in a byte, the first component in the highest bit of the first byte
(numpy.packbits), 1 where it is above 0. Bits that are left over in the last byte are 0.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pagevec.types import MultiVector

Dtype = Literal["float32", "float16", "int8", "binary"]

_INT8_MAX = 127
_SIGNS = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1.0
"""The eight signs in each byte, 1 and -1."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A multi-vector as it travels.

    Attributes:
        values: float32, float16 or int8 (vectors, dim), or uint8 (vectors, `sign_bytes(dim)`) for
            binary.
        scales: float32 (vectors,) for int8: a component is its value times the vector's scale.
        dim: components of a binary vector; None where there is one in every bit.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32] | None = None
    dim: int | None = None


def sign_bytes(dim: int) -> int:
    """Return how many bytes the signs of a vector of `dim` components take."""
    return -(-dim // 8)


def int8_drift(dim: int) -> float:
    """Return by how much int8 changes the length of a unit vector of `dim` components, at most.

    It moves each component by half a step, and a step is 1 / 127 of the largest one.
    """
    return float(dim**0.5 / (2 * _INT8_MAX))


def quantize(vectors: MultiVector, dtype: Dtype) -> Quantized:
    """Return float32 `vectors` (vectors, dim) as `dtype`."""
    if dtype == "int8":
        return _as_int8(vectors)
    if dtype == "binary":
        return Quantized(np.packbits(vectors > 0, axis=-1), dim=vectors.shape[-1])
    return Quantized(np.ascontiguousarray(vectors, dtype=np.dtype(dtype)))


def dequantize(quantized: Quantized, dtype: Dtype) -> MultiVector:
    """Return float32 vectors (vectors, dim); of binary ones the signs: 1 and -1 over sqrt(dim).

    Raises:
        ValueError: `dtype` is unknown, or `quantized` does not have its form.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"unknown dtype {dtype!r}")
    if quantized.values.ndim != 2:
        raise ValueError("a multi-vector has two dimensions")
    if dtype == "int8":
        if quantized.scales is None or quantized.scales.shape != quantized.values.shape[:1]:
            raise ValueError("each int8 vector has one scale")
        scaled: MultiVector = quantized.values.astype(np.float32) * quantized.scales[:, None]
        return scaled
    if dtype == "binary":
        return _unpack_signs(quantized.values, quantized.dim)
    return np.asarray(quantized.values, dtype=np.float32)


def _unpack_signs(values: NDArray[np.uint8], dim: int | None) -> MultiVector:
    width = values.shape[-1]
    if dim is not None and sign_bytes(dim) != width:
        raise ValueError(f"the signs of {dim} components are not in {width} bytes")
    dim = 8 * width if dim is None else dim
    # Looking bytes up takes a third of the time of unpacking them bit by bit.
    table = (_SIGNS / max(dim, 1) ** 0.5).astype(np.float32)
    components = np.take(table, values, axis=0, mode="clip")
    return np.ascontiguousarray(components.reshape(len(values), 8 * width)[:, :dim])


def _as_int8(vectors: MultiVector) -> Quantized:
    # The largest component of each vector becomes 127: the error is at most half a scale.
    scales = np.abs(vectors).max(axis=-1, initial=0.0) / _INT8_MAX
    safe = np.where(scales > 0, scales, 1.0).astype(np.float32)
    return Quantized(np.rint(vectors / safe[:, None]).astype(np.int8), safe)
