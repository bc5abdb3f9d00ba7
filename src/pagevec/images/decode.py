"""Turn an image file into RGB pixels: exactly those the file holds, or an error.

Pillow reads the files. This module closes the gaps through which Pillow returns wrong pixels:

- JPEG: lost data comes back as grey. libjpeg-turbo's own warnings (simplejpeg) reveal it.
- PNG: checksums of most chunks are not verified, rows may be missing, and the transparent colour
  of samples other than 8 bits wide is compared with the wrong numbers.
- GIF: what the first frame does not cover becomes colour 0; browsers show it as transparent.
- BMP: an alpha channel that was never filled in would make the whole picture transparent.
- TIFF: samples wider than 8 bits are cut off at 255, and "0 is white" is not honoured for them.

A file cut short is refused in every format. For want of checksums, these cannot be detected:

- bytes altered (not lost) inside GIF, BMP, WebP, most JPEG data and TIFF without deflate; in TIFF
  also any damage inside fax (G3, G4) and JPEG strips, which libtiff reports on stderr only;
- a progressive JPEG cut exactly between two scans and closed with an end marker: it is complete,
  but coarse;
- in a PNG with 16-bit colours, which are those that differ from the transparent one only in the
  low bytes: they become transparent too.

ICC profiles are ignored: samples are taken as sRGB.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pagevec.errors import InvalidImage
from pagevec.images.orientation import png_chunks

# Importing the plugins registers them, so that Pillow never goes on to load all of its others.
_PLUGINS = (BmpImageFile, GifImageFile, JpegImageFile, PngImageFile, TiffImageFile, WebPImageFile)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)

# Our limits are checked right after a header is read, so Pillow's own may not interfere with them.
# It is moved out of the way rather than switched off, since opening a GIF can already fill its
# first frame: 65,535 x 65,535 pixels would take 4 GiB. Pillow warns at this number and refuses at
# twice of it.
PIXELS_CEILING = 2**28
Image.MAX_IMAGE_PIXELS = PIXELS_CEILING // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# The warnings of libjpeg that mean lost picture data. It has others, which are harmless, such as
# "extraneous bytes before marker" (padding that some cameras write).
_LOST_DATA = re.compile("premature end|bad Huffman code|bad arithmetic code|instead of RST", re.I)
_START_OF_SCAN, _MOST_SCANS = b"\xff\xda", 100  # usual are 10

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Read the header only; no decoder outside `FORMATS` runs.

    Raises:
        Exception: of any kind, as Pillow does for bad data.
    """
    return Image.open(io.BytesIO(data), formats=FORMATS)


def decode_rgb(data: bytes) -> Image.Image:
    """Decode the first frame: mode RGB, alpha over white; turned upright for TIFF only.

    Raises:
        Exception: of any kind, if the data is damaged or incomplete.
    """
    image = open_image(data)
    return _over_white(_LOADERS[image.format or ""](image, data))


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight if straight.mode == "RGBA" else straight.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):  # frequent, and this is the faster way
        return rgba.convert("RGB")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=alpha)
    return canvas


def _load(image: ImageFile.ImageFile, _data: bytes) -> Image.Image:
    image.load()
    return image


def _load_jpeg(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    _check_scans(image, data)
    mode, stored = ("CMYK", "CMYK;I") if image.mode == "CMYK" else ("RGB", "RGB")
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    if (width, height) != image.size:  # which the limits were checked for
        raise ValueError("Pillow and libjpeg-turbo read different sizes")
    try:
        pixels = simplejpeg.decode_jpeg(data, mode)
    except ValueError as error:
        if _LOST_DATA.search(str(error)):
            raise
        return _load(image, data)
    return Image.frombuffer(mode, image.size, pixels, "raw", stored, 0, 1)


def _check_scans(image: ImageFile.ImageFile, data: bytes) -> None:
    """Each scan of a progressive JPEG passes over all pixels, even if it has but 100 bytes."""
    if "progressive" in image.info and data.count(_START_OF_SCAN) > _MOST_SCANS:
        raise InvalidImage(
            f"the JPEG image has more than {_MOST_SCANS} scans; save it as a baseline JPEG"
        )


def _load_png(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    _check_sums(data)
    # A row that shows whichever colour the canvas had before was never in the file.
    if _ends_in(image, 0) and _ends_in(open_image(data), 255):
        raise ValueError("rows are missing")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    _scale_transparent_colour(image, depth=data[24])
    return image


def _check_sums(data: bytes) -> None:
    view = memoryview(data)
    for kind, start, end in png_chunks(data):
        (expected,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(view[start - 4 : end]) != expected:
            raise ValueError(f"the checksum of the chunk {kind!r} is wrong")


def _ends_in(image: ImageFile.ImageFile, colour: int) -> bool:
    """Decode over a canvas of `colour`; whether one of the last rows still has it.

    The last two rows, since an interlaced file ends with the last odd row.
    """
    image.im = Image.new(image.mode, image.size, colour).im
    image.load()
    blank = Image.new(image.mode, (image.width, 1), colour).tobytes()
    last = range(max(0, image.height - 2), image.height)
    return any(image.crop((0, y, image.width, y + 1)).tobytes() == blank for y in last)


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _scale_transparent_colour(image: Image.Image, depth: int) -> None:
    """Bring the transparent colour to 8 bits, as Pillow does with the pixels only."""
    colour = image.info.get("transparency")
    if image.mode == "L" and colour is not None:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and colour is not None and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _load_gif(image: ImageFile.ImageFile, _data: bytes) -> Image.Image:
    left, top, right, bottom = image.tile[0][1] or (0, 0, *image.size)
    image.load()
    if (left, top, right, bottom) == (0, 0, *image.size):
        return image
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(_over_white(image.crop((left, top, right, bottom))), (left, top))
    return canvas


def _load_bmp(image: ImageFile.ImageFile, _data: bytes) -> Image.Image:
    image.load()
    unused_alpha = image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if unused_alpha else image


def _load_tiff(image: ImageFile.ImageFile, _data: bytes) -> Image.Image:
    tags = cast("TiffImageFile", image).tag_v2
    image.load()
    if image.mode[0] not in "IF":
        return image
    values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
    if image.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        values = values.view(np.uint32)
    low, high = _range(values) if image.mode in "IF" else (0, 2 ** tags[_TIFF_BITS][0] - 1)
    ends = (255, 0) if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, 255)
    return Image.fromarray(np.rint(np.interp(values, (low, high), ends)).astype(np.uint8))


def _range(values: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Guess black and white of samples that have no fixed range: 0 and a usual full scale."""
    low, high = float(values.min()), float(values.max())
    return min(0.0, low), next((top for top in (1.0, 255.0, 65535.0) if high <= top), high)


_LOADERS: dict[str, Callable[[ImageFile.ImageFile, bytes], Image.Image]] = {
    "BMP": _load_bmp,
    "GIF": _load_gif,
    "JPEG": _load_jpeg,
    "MPO": _load_jpeg,
    "PNG": _load_png,
    "TIFF": _load_tiff,
    "WEBP": _load,
}
