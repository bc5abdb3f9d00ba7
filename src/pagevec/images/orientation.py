"""Which way up a picture is (EXIF, XMP), and turning its pixels upright."""

import re
import zlib
from binascii import unhexlify
from contextlib import suppress
from struct import error as StructError

from PIL import Image

from pagevec.images.containers import JPEG_EXIF
from pagevec.images.tiff import ORIENTATION, directories

# How to turn the stored picture, by its EXIF orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = (5, 6, 7, 8)
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# Of texts only the beginning is read, and unpacked.
MOST_TEXT = 1 << 18


def find_orientation(in_exif: int, xmp: bytes) -> int:
    """Return the orientation (1-8): the number in EXIF data, else that in XMP, else 1."""
    if not in_exif and (found := _IN_XMP.search(xmp)):
        return find_orientation(int(found[1]), b"")
    return in_exif if in_exif in _TURNS else 1


def exif_orientation(exif: bytes) -> int:
    """Return the number in EXIF data; 0 if there is none, or no EXIF that can be read."""
    while exif.startswith(JPEG_EXIF):
        exif = exif[len(JPEG_EXIF) :]
    with suppress(ValueError, StructError):
        return next(directories(exif)).number(ORIENTATION)
    return 0


def exif_in_text(chunk: bytes, is_packed: bool) -> bytes:
    """Return the EXIF data that ImageMagick writes into PNG files as text: name, length, digits.

    Args:
        chunk: the content of the chunk behind its keyword.
        is_packed: whether it is of the kind zTXt.
    """
    text = _inflate(chunk[1:]) if is_packed else chunk[:MOST_TEXT]
    digits = b"".join(text.split(b"\n")[3:])
    with suppress(ValueError):
        return unhexlify(digits[: len(digits) // 2 * 2])
    return b""


def xmp_in_text(chunk: bytes) -> bytes:
    """Return the XMP data in an iTXt chunk of a PNG file, given its content behind the keyword."""
    # Two flags, a language, a translated keyword, the text.
    _, found, text = chunk[2:].partition(b"\0")[2].partition(b"\0")
    if not found:
        return b""
    return _inflate(text) if chunk[0] else text


def _inflate(data: bytes) -> bytes:
    with suppress(zlib.error):
        return zlib.decompressobj().decompress(data, MOST_TEXT)
    return b""


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return width and height as seen after turning."""
    return (height, width) if orientation in _SIDES_SWAPPED else (width, height)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture that is stored in this orientation; `image` itself if it is 1."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
