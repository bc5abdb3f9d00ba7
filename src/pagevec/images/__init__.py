"""Read the images that callers send: base64, limits, upright RGB pixels.

Reading takes two steps. `read_image` reads the header only and checks the limits, so it is cheap
and safe to do for every input first; `EncodedImage.decode` decodes the pixels, in any thread. The
limits hold for what decoding passes over and fills, such as the tiles of a TIFF or the scans of a
JPEG, which may be far more than the picture has.
`pagevec.images.decode` says how each format is decoded, and which damage cannot be detected.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from pagevec.errors import ImageTooLarge, InvalidImage, PagevecError
from pagevec.images import base64
from pagevec.images.costs import Header
from pagevec.images.decode import FORMATS, PIXELS_CEILING, decode_upright
from pagevec.images.headers import read_header
from pagevec.images.orientation import upright_size
from pagevec.limits import ImageLimits

# What decoding may fill and pass over, as multiples of the pixels that a picture may have: tiles
# reach beyond a picture's edges, and formats differ in the work of a pixel.
_AREA_FACTOR, _WORK_FACTOR = 2, 8

DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image file whose header is read and within the limits; its pixels are not decoded yet.

    Attributes:
        data: the file.
        format: PNG, JPEG, WEBP, GIF, TIFF or BMP.
        width: in pixels, as seen upright.
        height: in pixels, as seen upright.
        orientation: the EXIF number (1-8) of how the pixels are stored.
        decode_pixels: the work of decoding, as the pixels of a plain picture that take as long.
        decode_bytes: bytes that decoding holds at its peak, at most, besides `data`.
    """

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int
    orientation: int
    decode_pixels: int = field(repr=False)
    decode_bytes: int = field(repr=False)

    def decode(self) -> Image.Image:
        """Decode the first frame: mode RGB, `width` x `height`, alpha over white. Thread-safe.

        Raises:
            InvalidImage: the data is damaged or incomplete.
        """
        with _failing_as(
            f"the {self.format} image is damaged or incomplete; send the whole file again"
        ):
            image = decode_upright(self.data)
            if image.size != (self.width, self.height):
                raise ValueError(f"the pixels are {image.size}, unlike the header")
            return image


def read_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> EncodedImage:
    """Read the header of an image file and check it against `limits`.

    Raises:
        InvalidImage: it is not a file of a known format, or is visibly cut short.
        ImageTooLarge: it is over a limit.
    """
    if not data:
        raise InvalidImage("the image is empty; send the bytes of an image file as base64")
    base64.check_bytes(len(data), limits)
    with _failing_as(
        f"this is not an image file in one of the formats {', '.join(FORMATS)}, "
        "or it is damaged or incomplete"
    ):
        header = read_header(data)
    width, height = upright_size(header.width, header.height, header.orientation)
    _check_size(width, height, limits)
    _check_costs(header, limits)
    return EncodedImage(
        data, header.format, width, height, header.orientation, header.work, header.memory
    )


def read_base64_image(text: str, limits: ImageLimits = DEFAULT_LIMITS) -> EncodedImage:
    """Read the header of an image given as base64; see `decode_base64` and `read_image`."""
    return read_image(decode_base64(text, limits), limits)


def decode_base64(text: str, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Decode base64, bare or in a data URI; see `pagevec.images.base64`.

    Raises:
        InvalidImage: `text` is not base64; addresses are never fetched.
        ImageTooLarge: the decoded bytes would be over the limit; known before they are decoded.
    """
    return base64.decode_base64(text, limits)


def pad_to_ratio(image: Image.Image, ratio: float) -> Image.Image:
    """Add white at the right or the bottom until the long side is at most `ratio` times the short.

    Returns `image` itself if it is within `ratio` (>= 1).
    """
    least = math.ceil(max(image.size) / ratio)
    if min(image.size) >= least:
        return image
    canvas = Image.new("RGB", (max(image.width, least), max(image.height, least)), "white")
    canvas.paste(image)
    return canvas


@contextmanager
def _failing_as(sentence: str) -> Iterator[None]:
    """Turn whatever Pillow raises into `InvalidImage`: bad data can raise nearly any exception."""
    try:
        yield
    except (PagevecError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"the image has more than {PIXELS_CEILING:,} pixels; send a smaller one"
        ) from error
    except Exception as error:
        raise InvalidImage(sentence) from error


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if max(width, height) > limits.max_side:
        allowed = f"no side may be longer than {limits.max_side:,}"
    elif width * height > limits.max_pixels:
        allowed = f"at most {limits.max_pixels:,} pixels are allowed"
    else:
        return
    raise ImageTooLarge(
        f"the image is {width:,} x {height:,} pixels, but {allowed}; send it scaled down"
    )


def _check_costs(header: Header, limits: ImageLimits) -> None:
    most_area, most_work = limits.max_pixels * _AREA_FACTOR, limits.max_pixels * _WORK_FACTOR
    if header.area > most_area:
        found = f"its tiles have {header.area:,} pixels, but at most {most_area:,}"
    elif header.work > most_work:
        found = f"decoding it takes as long as {header.work:,} pixels, but at most {most_work:,}"
    else:
        return
    raise ImageTooLarge(
        f"the {header.format} image is {header.width:,} x {header.height:,} pixels; {found} are "
        "allowed; save it again, without tiles, runs or further scans"
    )
