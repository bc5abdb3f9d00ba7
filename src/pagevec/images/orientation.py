"""Which way up an image is (EXIF, XMP), and turning its pixels upright."""

import struct
from collections.abc import Iterator

from PIL import ExifTags, Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

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


def read_orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the EXIF orientation (1-8) of an opened, not yet decoded image file `data`.

    It is 1 where there is none, and where EXIF is unreadable: that does not spoil the pixels.

    Raises:
        struct.error: a PNG file is cut short.
    """
    if image.format == "PNG":
        # EXIF may stand behind the pixels, where Pillow looks only after decoding them.
        exif = [data[start:end] for kind, start, end in png_chunks(data) if kind == b"eXIf"]
        image.info.update({"exif": exif[0]} if exif else {})
    try:
        # Not `image.getexif()`: that of PNG decodes the pixels if it has not found EXIF yet.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return orientation if orientation in _TURNS else 1


def upright_size(image: ImageFile.ImageFile, orientation: int) -> tuple[int, int]:
    """Return width and height as seen after turning."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # some versions of Pillow have swapped these already
        width = image.tag_v2[ExifTags.Base.ImageWidth]
        height = image.tag_v2[ExifTags.Base.ImageLength]
    return (height, width) if orientation in _SIDES_SWAPPED else (width, height)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture that is stored in this orientation; `image` itself if it is 1."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk and where its content starts and ends, up to `IEND`.

    Raises:
        struct.error: the file ends before `IEND`.
    """
    start, kind = 16, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start - 8)
        yield kind, start, start + length
        start += length + 12
