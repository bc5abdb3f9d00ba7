"""Inputs to try a service with: texts and pages with nothing in common, made without Pillow."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

TEXTS = (
    "which route carried the most passengers?",
    "walnut bread",
    "Twelve centimetres of snow fell in one night, and all trains were late",
    "invoice 4711",
    "a map of the harbour",
)

_SIDE = 224


def draw_pages() -> tuple[str, ...]:
    """Return pages in base64 that have nothing in common: stripes, columns, rings, blocks."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    rings = np.hypot(x - _SIDE / 2, y - _SIDE / 2) // 14 % 2 == 0
    blocks = np.kron(np.random.default_rng(0).random((14, 14)) < 0.5, np.ones((16, 16))) > 0
    return tuple(map(_draw, (y // 8 % 2 == 0, x // 28 % 2 == 0, rings, blocks)))


def draw_mosaic(rows: int, columns: int) -> str:
    """Return a page in base64: squares of 40 pixels, black or white at random, the same always."""
    squares = np.random.default_rng(rows * columns).random((rows, columns)) < 0.5
    return _draw(np.kron(squares, np.ones((40, 40))) > 0)


def make_png(width: int, height: int, depth: int, colour: int, compressed: bytes) -> bytes:
    """Return a PNG file; `compressed` are its rows, each with its filter, deflated."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _draw(pixels: NDArray[np.bool_]) -> str:
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(pixels, axis=1))
    height, width = pixels.shape
    return base64.b64encode(make_png(width, height, 1, 0, zlib.compress(rows))).decode()
