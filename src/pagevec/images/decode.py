"""Turn an image file into RGB pixels: exactly those the file holds, or an error.

The header is read first (`headers`), and with it what decoding costs. Then Pillow decodes the file,
as the format of the header only, without all that does not decide on the pixels (`plain`). This
module closes the gaps through which Pillow returns wrong pixels:

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

ICC profiles are ignored, however large: samples are taken as sRGB.
"""

import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

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

from pagevec.images.containers import png_chunks
from pagevec.images.costs import Header
from pagevec.images.headers import read_header
from pagevec.images.orientation import turn_upright
from pagevec.images.plain import plain_file

Samples = npt.NDArray[Any]

# Importing the plugins registers them, so that Pillow need not load all of its others.
_PLUGINS = (BmpImageFile, GifImageFile, JpegImageFile, PngImageFile, TiffImageFile, WebPImageFile)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)

# Our limits are checked before Pillow sees a file, so its own may not interfere with them. It is
# moved out of the way rather than switched off: Pillow warns at this number and refuses at twice
# of it, which also stops files of the formats that only ingestion reads.
PIXELS_CEILING = 2**28
Image.MAX_IMAGE_PIXELS = PIXELS_CEILING // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# The warnings of libjpeg that mean lost picture data. It has others, which are harmless, such as
# "extraneous bytes before marker" (padding that some cameras write).
_LOST_DATA = re.compile("premature end|bad Huffman code|bad arithmetic code|instead of RST", re.I)
_PNG_DEPTH = 24  # where it stands in a file

# Pixels that are converted at a time.
_BAND = 1 << 16

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def open_image(data: bytes, header: Header, frame: int = 0) -> ImageFile.ImageFile:
    """Open a file whose header has been read, with the reader of its format alone.

    Raises:
        DecompressionBombError: it fills more than `PIXELS_CEILING`; also where Pillow finds that.
        Exception: of any kind, as Pillow does for bad data.
    """
    if header.area > PIXELS_CEILING:
        raise Image.DecompressionBombError
    image = Image.open(plain_file(data, header.format, frame), formats=[header.format])
    if image.size != (header.width, header.height):  # which the limits were checked for
        raise ValueError(f"Pillow reads {image.size}, unlike the header")
    return image


def decode_upright(data: bytes, frame: int = 0, most_pixels: int | None = None) -> Image.Image:
    """Decode a frame: mode RGB, upright, alpha over white, 8 bits from any depth.

    Args:
        data: a file of one of `FORMATS`.
        frame: which one; files of all formats but TIFF are read as their first.
        most_pixels: a larger picture is reduced by a whole factor to fewer than these, and none is
            in memory more than twice.

    Raises:
        Exception: of any kind, if the data is damaged or incomplete.
    """
    header = read_header(data, frame)
    if header.format == "PNG":
        _check_sums(data)
    file = open_image(data, header, frame)
    image = (
        _load_jpeg(file, most_pixels) if header.format == "JPEG" else _LOADERS[header.format](file)
    )
    del file  # each step frees the memory of the one before
    pixels = image.width * image.height
    is_large = most_pixels is not None and pixels > most_pixels
    factor = math.ceil(math.sqrt(2 * pixels / most_pixels)) if most_pixels and is_large else 1
    if factor == 1 and (most_pixels is None or not image.has_transparency_data):
        image = over_white(image)
    else:
        image = _reduce(image, factor)
    return turn_upright(image, header.orientation)


def over_white(image: Image.Image) -> Image.Image:
    """Return an 8-bit image in mode RGB, what is transparent over white."""
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


def _reduce(image: Image.Image, factor: int) -> Image.Image:
    """Return `image` over white in mode RGB, each square of `factor` x `factor` pixels as one."""
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top, band in _bands(image, factor):
        reduced.paste(over_white(band).reduce(factor), (0, top // factor))
    return reduced


def _bands(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield bands with their upper edges, as high as a multiple of `factor`."""
    height = factor * max(1, _BAND // image.width // factor)
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))


def _load(image: ImageFile.ImageFile) -> Image.Image:
    image.load()
    return image


def _load_jpeg(image: ImageFile.ImageFile, most_pixels: int | None) -> Image.Image:
    data = cast("io.BytesIO", image.fp).getvalue()
    mode, stored = ("CMYK", "CMYK;I") if image.mode == "CMYK" else ("RGB", "RGB")
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    if (width, height) != image.size:  # which the limits were checked for
        raise ValueError("Pillow and libjpeg-turbo read different sizes")
    factor = _jpeg_factor(width * height, most_pixels)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            mode,
            min_height=-(-height // factor),
            min_width=-(-width // factor),
            min_factor=factor,
        )
    except ValueError as error:
        if _LOST_DATA.search(str(error)):
            raise
        image.draft(None, (width // factor, height // factor))
        return _load(image)
    return Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", stored, 0, 1)


def _jpeg_factor(pixels: int, most_pixels: int | None) -> int:
    """Return the factor by which libjpeg reduces on the way: 1, 2, 4 or 8."""
    most = most_pixels or pixels
    return next((one for one in (1, 2, 4) if pixels <= most * one**2), 8)


def _check_sums(data: bytes) -> None:
    view = memoryview(data)
    for kind, start, end in png_chunks(data):
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError(f"the checksum of the chunk {kind!r} is wrong")


def _load_png(image: ImageFile.ImageFile) -> Image.Image:
    file = cast("io.BytesIO", image.fp)
    depth = file.getbuffer()[_PNG_DEPTH]
    # A row that shows the noise that the canvas had before was never in the file, most likely;
    # surely if it shows the opposite of it the next time. (One row is passed over in pieces.)
    size = len(Image.new(image.mode, (image.width, 1)).tobytes())
    noise = os.urandom(size) if image.height > 1 else bytes(size)
    if doubtful := _load_over(image, noise):
        image.im = Image.new(image.mode, (1, 1)).im  # only one of the two stays in memory
        file.seek(0)
        image = Image.open(file, formats=["PNG"])
        if doubtful & _load_over(image, bytes(255 - value for value in noise)):
            raise ValueError("rows are missing")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    _scale_transparent_colour(image, depth)
    return image


def _load_over(image: ImageFile.ImageFile, noise: bytes) -> set[int]:
    """Decode over a canvas whose last rows are `noise`; return those that still are.

    The last two rows, since an interlaced file ends with the last odd row.
    """
    canvas, width = Image.new(image.mode, image.size), image.width
    stripe = Image.frombytes(image.mode, (width, 1), noise)
    last = range(max(0, image.height - 2), image.height)
    for y in last:
        canvas.paste(stripe, (0, y))
    image.im = canvas.im
    image.load()
    return {y for y in last if image.crop((0, y, width, y + 1)).tobytes() == stripe.tobytes()}


def _from_16_bits(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency", -1)

    def convert(values: Samples) -> Samples:
        return np.where(values == transparent, 255, values >> 8)

    return _to_8_bits(image, convert)


def _to_8_bits(image: Image.Image, convert: Callable[[Samples], Samples]) -> Image.Image:
    """Convert wide samples band by band: numpy takes many times the memory of the picture."""
    grey = Image.new("L", image.size)
    for top, band in _bands(image):
        grey.paste(Image.fromarray(convert(np.asarray(band)).astype(np.uint8)), (0, top))
    return grey


def _scale_transparent_colour(image: Image.Image, depth: int) -> None:
    """Bring the transparent colour to 8 bits, as Pillow does with the pixels only."""
    colour = image.info.get("transparency")
    if image.mode == "L" and colour is not None:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and colour is not None and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _load_gif(image: ImageFile.ImageFile) -> Image.Image:
    left, top, right, bottom = image.tile[0][1] or (0, 0, *image.size)
    image.load()
    if (left, top, right, bottom) == (0, 0, *image.size):
        return image
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(over_white(image.crop((left, top, right, bottom))), (left, top))
    return canvas


def _load_bmp(image: ImageFile.ImageFile) -> Image.Image:
    image.load()
    unused_alpha = image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if unused_alpha else image


def _load_tiff(image: ImageFile.ImageFile) -> Image.Image:
    tags = cast("TiffImageFile", image).tag_v2
    image.load()
    if image.mode[0] not in "IF":
        return image
    is_unsigned = tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED

    def clean(values: Samples) -> Samples:
        finite = np.nan_to_num(values, posinf=0, neginf=0)
        return finite.view(np.uint32) if image.mode == "I" and is_unsigned else finite

    if image.mode in "IF":
        arrays = (clean(np.asarray(band)) for _, band in _bands(image))
        extremes = [(float(values.min()), float(values.max())) for values in arrays]
        limits = _range(np.min(extremes), np.max(extremes))
    else:
        limits = 0, 2 ** tags[_TIFF_BITS][0] - 1
    ends = (255, 0) if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, 255)
    return _to_8_bits(image, lambda values: np.rint(np.interp(clean(values), limits, ends)))


def _range(low: float, high: float) -> tuple[float, float]:
    """Guess black and white of samples that have no fixed range: 0 and a usual full scale."""
    return min(0.0, low), next((top for top in (1.0, 255.0, 65535.0) if high <= top), high)


_LOADERS: dict[str, Callable[[ImageFile.ImageFile], Image.Image]] = {
    "BMP": _load_bmp,
    "GIF": _load_gif,
    "PNG": _load_png,
    "TIFF": _load_tiff,
    "WEBP": _load,
}
