"""Image files made byte by byte, of the kinds that Pillow reads but does not write."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
ADAM7 = (*ADAM7, (0, 1, 1, 2))  # left, top, step across, step down

# How a picture is stored whose EXIF orientation says so.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    """`image` as a file, by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_of(header: bytes, *chunks: bytes) -> bytes:
    end = png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + end


def png(
    samples: np.ndarray[Any, Any],
    depth: int,
    colour_type: int,
    *extra: bytes,
    interlaced: bool = False,
    rows_left_out: int = 0,
) -> bytes:
    """A PNG of `samples` (height, width, channels), each in `depth` bits, `extra` before IDAT."""
    height, width, _ = samples.shape
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    rows = [row for part in passes if part.size for row in part]
    kept = rows[: len(rows) - rows_left_out]
    raw = b"".join(b"\0" + _packed(row.reshape(-1), depth) for row in kept)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    return png_of(header, *extra, png_chunk(b"IDAT", zlib.compress(raw)))


def _packed(row: np.ndarray[Any, Any], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def tiff(
    content: bytes,
    width: int,
    height: int,
    bits: Sequence[int],
    *,
    photometric: int,
    sample_format: int = 1,
    compression: int = 1,
    order: str = "<",
    length: int | None = None,
) -> bytes:
    """A TIFF of one strip, its directory in front of `content`, so that a cut hits the pixels."""
    samples = len(bits)
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, bits),
        (259, 3, [compression]),
        (262, 3, [photometric]),
        (273, 4, [0]),
        (277, 3, [samples]),
        (278, 4, [height]),
        (279, 4, [len(content) if length is None else length]),
        (339, 3, [sample_format] * samples),
    ]
    behind = 8 + 2 + 12 * len(tags) + 4
    start = behind + 2 * 2 * samples
    entries, outside = b"", b""
    for tag, kind, values in tags:
        stored = [start] if tag == 273 else values
        packed = struct.pack(f"{order}{len(stored)}{'HI'[kind == 4]}", *stored)
        if len(packed) > 4:
            outside, packed = outside + packed, struct.pack(order + "I", behind + len(outside))
        entries += struct.pack(order + "HHI", tag, kind, len(stored)) + packed.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    directory = struct.pack(order + "H", len(tags)) + entries + b"\0" * 4
    return (head + directory + outside).ljust(start, b"\0") + content


def bmp_with_alpha(pixels: np.ndarray[Any, Any]) -> bytes:
    """A BMP (version 4 header) of `pixels` (height, width, 4: red, green, blue, alpha)."""
    height, width, _ = pixels.shape
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, 0, 0, 0, 0, 0) + masks
    content = pixels[::-1, :, [2, 1, 0, 3]].astype(np.uint8).tobytes()
    start = 14 + 108
    file = struct.pack("<IHHI", start + len(content), 0, 0, start)
    return b"BM" + file + info.ljust(108, b"\0") + content


def gif_frame(width: int, height: int, box: tuple[int, int, int, int], disposal: int = 0) -> bytes:
    """A GIF of one empty frame at `box` (left, top, width, height); no pixels follow."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\0\0"
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    return screen + control + b"," + struct.pack("<HHHHB", *box, 0) + b"\x02\0;"


def bmp_in_runs(width: int, height: int, row: bytes) -> bytes:
    """A BMP of 8 bits a pixel, each row of which is the runs `row` (pairs of length and value)."""
    content = (row + b"\0\0") * height + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(content), 0, 0, 256, 0)
    palette = np.random.default_rng(0).integers(0, 256, 1024, np.uint8).tobytes()
    start = 14 + len(info) + len(palette)
    return (
        b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start) + info + palette + content
    )


def with_tags(file: bytes, changes: dict[int, tuple[int, int, int]]) -> bytes:
    """A little-endian TIFF with other entries (type, count, value), in the order of their tags."""
    (start,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, start)
    entries = {
        struct.unpack_from("<H", file, at)[0]: file[at : at + 12]
        for at in range(start + 2, start + 2 + 12 * count, 12)
    }
    for tag, values in changes.items():
        entries[tag] = struct.pack("<HHII", tag, *values)
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    file += b"\0" * (len(file) % 2)
    return file[:4] + struct.pack("<I", len(file)) + file[8:] + directory + b"\0" * 4
