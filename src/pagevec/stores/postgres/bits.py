"""PostgreSQL's binary form of BIT(128)[] <-> packed sign bits. Pure numpy, no loop over vectors.

The form: number of dimensions, flags, type of the elements, length and lower bound of the one
dimension, each 4 bytes, big endian; then for each element its size in bytes, its number of bits
and the bits, the first in the highest bit of the first byte, as `wire.quantize` packs them.
"""

import hashlib
import struct

import numpy as np

from pagevec.stores.hamming import PackedBits

DIM = 128
"""Components of a vector, one bit each: what the column's type allows."""

_BIT = 1560  # the type's number in every PostgreSQL
_EMPTY = struct.pack("!3i", 0, 0, _BIT)
_HEADER = struct.Struct("!5i")
_SIZES = np.frombuffer(struct.pack("!2i", 4 + DIM // 8, DIM), np.uint8)


def encode(signs: PackedBits) -> bytes:
    """Return the array of `signs` (vectors, 16)."""
    if len(signs) == 0:
        return _EMPTY
    elements = np.empty((len(signs), len(_SIZES) + DIM // 8), np.uint8)
    elements[:, : len(_SIZES)] = _SIZES
    elements[:, len(_SIZES) :] = signs
    return _HEADER.pack(1, 0, _BIT, len(signs), 1) + elements.tobytes()


def decode(array: bytes) -> PackedBits:
    """Return the sign bits (vectors, 16) of an array."""
    width = len(_SIZES) + DIM // 8
    elements = np.frombuffer(array[_HEADER.size :], np.uint8).reshape(-1, width)
    return elements[:, len(_SIZES) :]


def digest(signs: PackedBits) -> bytes:
    """Return 16 bytes which are other ones for other signs."""
    return hashlib.blake2b(signs.tobytes(), digest_size=16).digest()
