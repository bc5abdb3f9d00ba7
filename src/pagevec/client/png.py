"""Whether a PNG file is whole, and of a kind whose pixels Pillow reads rightly. No Pillow here.

What is not so goes to the service as it is, which judges it: a damaged page must not be mended on
the way. `pagevec.images.decode` tells what Pillow gets wrong.
"""

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3


def size_of(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) as stored; None if this is not a PNG file."""
    if not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def is_plain_and_whole(data: bytes) -> bool:
    """Whether a PNG file is not interlaced, not 16 bits deep, and complete to the last row."""
    try:
        chunks = list(_chunks(data))
    except (struct.error, zlib.error):
        return False
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    odd = any(kind == b"tRNS" for kind, _ in chunks) and colour != _PALETTE
    if depth > 8 or interlaced or odd or colour not in _CHANNELS:
        return False
    row = 1 + -(-width * depth * _CHANNELS[colour] // 8)
    return _inflates_to(b"".join(part for kind, part in chunks if kind == b"IDAT"), row * height)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    start, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        content = data[start + 8 : start + 8 + length]
        (expected,) = struct.unpack_from(">I", data, start + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != expected:
            raise zlib.error("a checksum is wrong")
        yield kind, content
        start += length + 12


def _inflates_to(compressed: bytes, expected: int) -> bool:
    inflate = zlib.decompressobj()
    try:
        pixels = inflate.decompress(compressed, expected + 1)  # bounded: a bomb stops here
    except zlib.error:
        return False
    return len(pixels) == expected
