"""Picture files as Pillow is given them: what decides on the pixels, and nothing else.

Profiles, texts, further pictures and animations stay behind. They are no reason to refuse a file,
whatever they unpack to, and Pillow would walk over them in Python.
"""

import struct
from collections.abc import Callable
from io import BytesIO

from pagevec.images.containers import (
    GIF_CONTROL,
    GIF_PICTURE,
    JPEG_EXIF,
    JPEG_SCAN,
    WEBP_ALPHA,
    WEBP_ANIMATED,
    WEBP_PIXELS,
    gif_blocks,
    gif_screen_end,
    jpeg_segments,
    png_chunks,
    riff_chunks,
)
from pagevec.images.tiff import find_directory

_PNG_HEADER = 33
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# Application segments but JFIF's and Adobe's, which decide on the colours, and comments.
_NOT_IN_JPEG = frozenset(bytes([kind]) for kind in (*range(0xE1, 0xEE), 0xEF, 0xFE))


def plain_file(data: bytes, format_: str, frame: int = 0) -> BytesIO:
    """Return a file with one picture of `data`, whose header has been read, and its resolution.

    Args:
        data: the file.
        format_: which it is, as `find_format` says.
        frame: which picture of a TIFF.
    """
    if format_ == "TIFF":
        return find_directory(data, frame).alone()
    return _MAKERS[format_](data)


def _room_for(data: bytes) -> BytesIO:
    """Return a file of zeros a little larger than `data`: one that grows would be copied again."""
    return BytesIO(bytes(len(data) + 64))


def _plain_png(data: bytes) -> BytesIO:
    """All pixels as one chunk: Pillow would walk over the chunks in Python."""
    view, file = memoryview(data), _room_for(data)
    file.write(view[:_PNG_HEADER])
    kept, start_of_pixels = {b"PLTE", b"tRNS", b"pHYs"}, 0
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            if not start_of_pixels:
                file.write(b"\0\0\0\0IDAT")
                start_of_pixels = file.tell()
            file.write(view[start:end])
        elif kind in kept and not start_of_pixels:
            file.write(view[start - 8 : end + 4])
            kept.remove(kind)
    length = file.tell() - start_of_pixels
    # Pillow does not verify the checksum of pixels; `decode` verifies those of all chunks.
    file.write(b"\0\0\0\0" + _PNG_END)
    file.truncate()
    file.seek(start_of_pixels - 8)
    file.write(struct.pack(">I", length))
    return file


def _plain_jpeg(data: bytes) -> BytesIO:
    view, file = memoryview(data), _room_for(data)
    file.write(view[:2])
    has_exif = False  # in which Pillow finds the resolution
    for kind, start, end in jpeg_segments(data):
        if kind == JPEG_SCAN:
            file.write(view[start - 4 :])
            break
        is_exif = data.startswith(JPEG_EXIF, start) and not has_exif
        if kind not in _NOT_IN_JPEG or is_exif:
            file.write(view[start - 4 : end])
            has_exif |= is_exif
    file.truncate()
    return file


def _plain_gif(data: bytes) -> BytesIO:
    """Without disposal, for which Pillow fills a frame while it opens the file."""
    view, file, control = memoryview(data), _room_for(data), b""
    for kind, start, end in gif_blocks(data):
        if kind == GIF_CONTROL and data[start] & 1:
            control = b"!\xf9\4\1\0\0" + data[start + 3 : start + 4] + b"\0"
        elif kind == GIF_PICTURE:
            file.write(view[: gif_screen_end(data)])
            file.write(control)
            file.write(view[start - 1 : end])
    file.truncate()
    return file


def _plain_webp(data: bytes) -> BytesIO:
    """With the first frame only, if it is animated."""
    view, file, wanted = memoryview(data), _room_for(data), set(WEBP_PIXELS)
    file.write(b"RIFF\0\0\0\0WEBP")
    for kind, start, end in riff_chunks(data):
        if kind == b"VP8X":
            flags = data[start] & (WEBP_ALPHA | WEBP_ANIMATED)
            if flags & WEBP_ANIMATED:
                wanted = {b"ANIM", b"ANMF"}
            file.write(view[start - 8 : start])
            file.write(bytes([flags]))
            file.write(view[start + 1 : end])
        elif kind in wanted:
            file.write(view[start - 8 : end])
            file.write(b"\0" * ((end - start) % 2))
            wanted.remove(kind)
    length = file.truncate() - 8
    file.seek(4)
    file.write(struct.pack("<I", length))
    return file


_MAKERS: dict[str, Callable[[bytes], BytesIO]] = {
    "BMP": BytesIO,
    "GIF": _plain_gif,
    "JPEG": _plain_jpeg,
    "PNG": _plain_png,
    "WEBP": _plain_webp,
}
