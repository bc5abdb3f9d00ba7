"""Multi-vectors as the bytes that a store keeps: float16, scaled int8, or sign bits."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import StoreError
from pagevec.stores.base import are_unit
from pagevec.stores.probe import PackedBits
from pagevec.types import MultiVector
from pagevec.wire.quantize import Quantized, dequantize, quantize, sign_bytes

VectorFormat = Literal["float16", "int8", "binary"]
"""How a store keeps vectors: in 2, 1 or 1/8 bytes per component."""

FINGERPRINT_FORMAT: VectorFormat = "float16"
"""How every store keeps its model fingerprint."""

_SIGN_AND_NUMBER = np.int32(-0x70000001)  # all bits but the three between sign and exponent
_BIAS = np.float32(2.0 ** (127 - 15))


def pack(vectors: MultiVector, form: VectorFormat) -> bytes:
    """Return vectors as bytes.

    Args:
        vectors: float32 (n, dim).
        form: how to keep them.

    Returns:
        The values of all vectors; for int8 followed by the scales, float32 (n,).
    """
    quantized = quantize(vectors, form)
    scales = b"" if quantized.scales is None else quantized.scales.tobytes()
    return quantized.values.tobytes() + scales


def unpack(packed: bytes, dim: int, form: VectorFormat) -> MultiVector:
    """Return the vectors that `pack` made into bytes.

    Args:
        packed: what `pack` returned.
        dim: components of each vector.
        form: the format they are kept in.

    Returns:
        The vectors, float32 (n, dim), as exact as the format.

    Raises:
        ValueError: the bytes are not a whole number of vectors.
    """
    if form == "float16":
        return _from_half(np.frombuffer(packed, np.int16)).reshape(-1, dim)
    if form == "binary":
        return dequantize(Quantized(unpack_signs(packed, dim), dim=dim), form)
    values = len(packed) // (dim + 4) * dim
    scales = np.frombuffer(packed, np.float32, offset=values)
    return dequantize(
        Quantized(np.frombuffer(packed, np.int8, count=values).reshape(-1, dim), scales), form
    )


def unpack_signs(packed: bytes, dim: int) -> PackedBits:
    """Return the sign bits uint8 (n, `sign_bytes(dim)`) that `pack` made into bytes.

    Raises:
        ValueError: the bytes are not a whole number of vectors.
    """
    return np.frombuffer(packed, np.uint8).reshape(-1, sign_bytes(dim))


def unpack_unit(packed: bytes, dim: int, form: VectorFormat, count: int | None) -> MultiVector:
    """Return the unit vectors that `pack` made into bytes, which may be damaged.

    Args:
        packed: bytes of a store.
        dim: components of each vector.
        form: the format they are kept in.
        count: how many vectors there have to be; None where that is not known.

    Raises:
        ValueError: the bytes are not so many unit vectors.
    """
    try:
        vectors = unpack(packed, dim, form)
    except ValueError:
        raise ValueError("its vectors are cut off") from None
    if count not in (None, len(vectors)):
        raise ValueError(f"it has {len(vectors)} vectors instead of {count}")
    if form != "binary" and not are_unit(vectors):
        raise ValueError("its vectors are not of unit length")
    return vectors


def read_fingerprint(packed: bytes, dim: int) -> MultiVector:
    """Return a store's fingerprint, float32 (vectors, dim).

    Raises:
        StoreError: it is damaged.
    """
    try:
        return unpack_unit(packed, dim, FINGERPRINT_FORMAT, None)
    except ValueError as error:
        raise StoreError(
            f"the store's fingerprint of its model is damaged ({error}): restore the store from a "
            "copy, or ingest into a new one"
        ) from None


def _from_half(halves: NDArray[np.int16]) -> NDArray[np.float32]:
    """Convert float16 bit patterns (n,) to float32 (n,), exactly except for infinity and NaN.

    This is seven times as fast as numpy's conversion, which goes value by value and would take
    more of a search than everything else together.
    """
    shifted = halves.astype(np.int32)
    shifted <<= 13  # mantissa and exponent to their places in a float32, the sign by itself
    shifted &= _SIGN_AND_NUMBER
    numbers = shifted.view(np.float32)
    numbers *= _BIAS
    return numbers
