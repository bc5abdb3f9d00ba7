"""Turn images as callers have them into files to send, resized where the model resizes them anyway.

Pillow is needed for Pillow images, for arrays and for resizing; without it files go as they are.
A damaged page must not be mended on the way, so only PNG files that are whole are rewritten; the
service judges all others. `pagevec.images.decode` lists what Pillow reads wrongly.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import InvalidImage
from pagevec.grid import PageResizing, save_losslessly
from pagevec.types import ImageInput

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's type of colour
_PALETTE = 3


def image_file(image: ImageInput, resizing: PageResizing | None) -> bytes:
    """Return the bytes of an image file to send.

    Args:
        image: a path, the bytes of a file, a Pillow image, or uint8 pixels: (h, w), (h, w, 3) or
            (h, w, 4).
        resizing: how the model resizes pages; None leaves the size as it is.

    Raises:
        InvalidImage: it cannot be read, or it is not an image.
    """
    if isinstance(image, (str, os.PathLike)):
        image = _read(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _shrink_file(bytes(image), resizing)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not hasattr(image, "save"):
        raise InvalidImage(
            f"unsupported image type {type(image).__name__!r}: expected a path, bytes, "
            "a Pillow image or an array"
        )
    return _encode(image, resizing)


def is_plain_and_whole(data: bytes) -> bool:
    """Whether Pillow reads a PNG file rightly, and it is complete to the last row.

    `Image.verify` would miss a file cut in its last chunk, and rows missing under right checksums.
    """
    width, height, depth, colour, *_, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth > 8 or interlaced or colour not in _CHANNELS:
        return False
    expected = (1 + -(-width * depth * _CHANNELS[colour] // 8)) * height
    try:
        chunks = list(_read_chunks(data))
        compressed = b"".join(content for kind, content in chunks if kind == b"IDAT")
        # Bounded by the size that the header promises: a decompression bomb stops there.
        pixels = zlib.decompressobj().decompress(compressed, expected + 1)
    except (struct.error, zlib.error):
        return False
    transparent = any(kind == b"tRNS" for kind, _ in chunks)
    return len(pixels) == expected and (colour == _PALETTE or not transparent)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidImage(f"cannot read image file {path}: {error.strerror}") from error


def _shrink_file(data: bytes, resizing: PageResizing | None) -> bytes:
    """Return a PNG file resized, or `data` where that gains nothing or is not safe.

    Other formats are small already, or Pillow does not notice that they are damaged.
    """
    size = _read_png_size(data)
    if resizing is None or size is None or not resizing.shrinks(*size):
        return data
    try:
        from PIL import Image
    except ImportError:
        return data
    if not is_plain_and_whole(data):
        return data
    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            image.load()  # EXIF may stand behind the pixels
            return min(_encode(image, resizing), data, key=len)
    except Exception:  # whatever Pillow raises: the service says what is wrong
        return data


def _read_png_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) as stored; None if this is not a PNG file."""
    if not data.startswith(_PNG_SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _read_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each chunk of a PNG file, up to `IEND`.

    Raises:
        struct.error: the file ends before that.
        zlib.error: a checksum is wrong.
    """
    start, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        content = data[start + 8 : start + 8 + length]
        (expected,) = struct.unpack_from(">I", data, start + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != expected:
            raise zlib.error("a checksum is wrong")
        yield kind, content
        start += length + 12


def _from_array(pixels: NDArray[Any]) -> "Picture":
    wrong = InvalidImage(
        f"unsupported image array: {pixels.dtype} {pixels.shape}, "
        "expected uint8 (h, w), (h, w, 3) or (h, w, 4)"
    )
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise wrong
    try:
        from PIL import Image
    except ImportError:
        raise InvalidImage("arrays need Pillow: pip install pillow") from None
    try:
        return Image.fromarray(pixels)
    except (TypeError, ValueError):
        raise wrong from None


def _encode(image: "Picture", resizing: PageResizing | None) -> bytes:
    from PIL import ImageOps

    upright = _over_white(ImageOps.exif_transpose(image))
    if resizing is not None and resizing.shrinks(*upright.size):
        return save_losslessly(resizing.resize(upright))
    file = BytesIO()
    upright.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _over_white(image: "Picture") -> "Picture":
    from PIL import Image

    if image.mode[0] in "IF":
        raise InvalidImage(
            f"unsupported image mode {image.mode!r}, in which no value is white: convert it to 'L'"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas
