"""Walk over the parts of picture files: chunks, segments and blocks.

Nothing is unpacked or copied, and the number of parts is bounded by the size of the file, so that a
walk over any bytes takes little time.
"""

import re
import struct
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import islice
from typing import TypeVar

from pagevec.errors import InvalidImage

Item = TypeVar("Item")
# Kind (of JPEG and GIF: its number), and where the content starts and ends.
Part = tuple[bytes, int, int]

# A file may have this many parts, and one more for so many bytes: more than in any real picture.
_PARTS, _BYTES_OF_PART = 1_000, 128

JPEG_SCAN, JPEG_END, JPEG_EXIF = b"\xda", b"\xd9", b"Exif\0\0"
# Inside coded pixels 0xFF is followed by 0; restart marks (D0-D7) stand among pixels, too.
_JPEG_MARK = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_WINDOW = 1 << 16  # bytes that are searched while no other thread can run

# Flags of the chunk VP8X, and the chunks of one picture.
WEBP_ANIMATED, WEBP_ALPHA, WEBP_PIXELS = 0x02, 0x10, (b"ALPH", b"VP8 ", b"VP8L")

GIF_PICTURE, GIF_CONTROL = b",", b"\xf9"
_GIF_EXTENSION, _GIF_END, _GIF_PALETTE = b"!", b";", 0x80


def limited(walk: Callable[..., Iterator[Item]]) -> Callable[..., Iterator[Item]]:
    """Let a walk end with an error when a file has far more parts than any picture."""

    @wraps(walk)
    def limited_walk(data: bytes, *places: int) -> Iterator[Item]:
        most = _PARTS + len(data) // _BYTES_OF_PART
        parts = walk(data, *places)
        yield from islice(parts, most)
        if next(parts, None) is not None:
            raise InvalidImage(
                f"the image file consists of more than {most:,} parts, which no picture needs; "
                "save it again with an image program"
            )

    return limited_walk


@limited
def png_chunks(data: bytes) -> Iterator[Part]:
    """Yield the chunks of a PNG file, up to `IEND`.

    Raises:
        InvalidImage: there are more than a picture needs.
        struct.error: the file ends before `IEND`.
    """
    unpack = struct.Struct(">I4s").unpack_from
    start, kind = 16, b""
    while kind != b"IEND":
        length, kind = unpack(data, start - 8)
        yield kind, start, start + length
        start += length + 12


@limited
def jpeg_segments(data: bytes) -> Iterator[Part]:
    """Yield the segments of a JPEG file by the second byte of their marks, up to the end mark.

    What stands between segments, such as coded pixels, is passed over. Without an end mark the
    walk ends with the file.

    Raises:
        InvalidImage: there are more than a picture needs.
        struct.error: the file ends within the length of a segment.
    """
    at = 2
    while (mark := _find_jpeg_mark(data, at)) is not None:
        kind = data[mark + 1 : mark + 2]
        if kind == JPEG_END:
            yield kind, mark + 2, mark + 2
            return
        (length,) = struct.unpack_from(">H", data, mark + 2)
        at = mark + 2 + length
        yield kind, mark + 4, at


def _find_jpeg_mark(data: bytes, start: int) -> int | None:
    for at in range(start, len(data), _WINDOW):
        if found := _JPEG_MARK.search(data, at, at + _WINDOW + 1):
            return found.start()
    return None


@limited
def riff_chunks(data: bytes, start: int = 12, end: int = 0) -> Iterator[Part]:
    """Yield the chunks of a WebP file, or those between `start` and `end`, of one of its frames.

    Raises:
        InvalidImage: there are more than a picture needs.
        ValueError: the file ends within a chunk.
    """
    end = end or 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise ValueError("the file ends too early")
    while start + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, start)
        start += 8
        if start + length > end:
            raise ValueError("the file ends too early")
        yield kind, start, start + length
        start += length + length % 2


def gif_screen_end(data: bytes) -> int:
    """Return where the header of a GIF file ends, with its palette."""
    return 13 + (3 << (data[10] & 7) + 1 if data[10] & _GIF_PALETTE else 0)


@limited
def gif_blocks(data: bytes) -> Iterator[Part]:
    """Yield the blocks in front of the first picture of a GIF file, and then that picture's.

    Those of extensions have their label for a kind; the picture ends where the file does.

    Raises:
        InvalidImage: there are more than a picture needs.
        ValueError: it has no picture; IndexError where the file ends before it.
    """
    start = gif_screen_end(data)
    while (mark := data[start : start + 1]) != GIF_PICTURE:
        if not mark or mark == _GIF_END:
            raise ValueError("there is no picture")
        start += 1
        if mark == _GIF_EXTENSION:
            label = data[start : start + 1]
            start += 1
            while length := data[start]:
                yield label, start + 1, start + 1 + length
                start += 1 + length
            start += 1
        yield b"", start, start  # counts what is skipped
    yield GIF_PICTURE, start + 1, len(data)
