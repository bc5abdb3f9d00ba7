"""Sign bits in PostgreSQL's binary format of BIT(128)[], without a loop over vectors.

The format: number of dimensions, flags, type of the elements, length and lower bound of the one
dimension, each 4 bytes, big endian; then for each element its size in bytes, its number of bits,
and the bits, packed as by `wire.quantize`: the first is the highest bit of the first byte.
"""

import hashlib
import struct

import numpy as np

from pagevec.stores.probe import PackedBits
from pagevec.wire.quantize import sign_bytes

DIM = 128
"""Components of a vector, one bit each: the length that the column's type has."""

_BYTES = sign_bytes(DIM)
_BIT = 1560  # the type's OID in every PostgreSQL
_EMPTY = struct.pack("!3i", 0, 0, _BIT)
_HEADER = struct.Struct("!5i")
_SIZES = np.frombuffer(struct.pack("!2i", 4 + _BYTES, DIM), np.uint8)


def encode(signs: PackedBits) -> bytes:
    """Return the sign bits uint8 (vectors, 16) as a binary array."""
    if len(signs) == 0:
        return _EMPTY
    elements = np.empty((len(signs), len(_SIZES) + _BYTES), np.uint8)
    elements[:, : len(_SIZES)] = _SIZES
    elements[:, len(_SIZES) :] = signs
    return _HEADER.pack(1, 0, _BIT, len(signs), 1) + elements.tobytes()


def decode(array: bytes) -> PackedBits:
    """Return the sign bits uint8 (vectors, 16) of a binary array.

    Raises:
        ValueError: its elements are not 128 bits each, as where one is NULL.
    """
    elements = np.frombuffer(array[_HEADER.size :], np.uint8).reshape(-1, len(_SIZES) + _BYTES)
    if np.any(elements[:, : len(_SIZES)] != _SIZES):
        raise ValueError(f"its sign bits are not an array of {DIM} bits each")
    return elements[:, len(_SIZES) :]


def literal(signs: PackedBits) -> str:
    """Return the sign bits uint8 (vectors, 16) as an array in SQL's text."""
    digits = np.unpackbits(signs, axis=1) + np.uint8(ord("0"))
    return "{" + ",".join(row.tobytes().decode() for row in digits) + "}"


def digest(signs: PackedBits) -> bytes:
    """Return 16 bytes that identify the sign bits uint8 (vectors, 16)."""
    return hashlib.blake2b(signs.tobytes(), digest_size=16).digest()
