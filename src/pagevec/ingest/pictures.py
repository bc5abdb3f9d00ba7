"""Picture files -> pages: one, or one for each frame of a TIFF.

The six formats of the HTTP service are read as the service reads them (`pagevec.images`), so that
a page has the vectors that the service gives for its file. Ingestion reads some more formats, and
larger pictures, which are made smaller on the way.
"""

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pagevec.errors import DocumentError, PagevecError
from pagevec.extras import how_to_install
from pagevec.ingest.page import Pages, ReadOptions, SourcePage, page_from_image

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

# Bytes that a file and its decoded pixels may take; the reader has not much more for a page.
_MOST_BYTES = 400 << 20
# Larger pictures are made smaller by a whole factor before anything else is done with them.
_LARGE_PIXELS = 50_000_000
# Bytes for each pixel of the formats that only ingestion reads; they are decoded as a whole.
_BYTES_OF_FORMAT = {"AVIF": 12, "HEIF": 12, "JPEG2000": 20}
_SVG_PIXELS = 1754  # across
_MOST_SVG_PIXELS = 16_000_000
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_ORIENTATION = 274  # the tag in EXIF
_INSIDE = ("#", "data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp")


@contextmanager
def open_picture(document: Path, options: ReadOptions) -> Iterator[Pages]:
    """Open a picture file.

    Raises:
        DocumentError: it is not a picture, of a format that is not read, or Pillow is missing.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise DocumentError(f"pictures need {how_to_install('pdf')}") from None
    data = document.read_bytes()
    if _is_svg(data):
        yield Pages(1, lambda number: page_from_image(number, _draw_svg(data), options))
        return
    frames = _count_frames(data)

    def make(number: int) -> SourcePage:
        return page_from_image(number, _read_frame(data, number - 1), options)

    yield Pages(frames, make)


def _count_frames(data: bytes) -> int:
    from pagevec.images.headers import count_frames

    with _reading():
        return count_frames(data)


def _read_frame(data: bytes, frame: int) -> "Image.Image":
    """Return a frame upright, in mode RGB, over white, in its true shape."""
    from PIL import ImageOps

    from pagevec.images.decode import decode_upright, open_image, over_white
    from pagevec.images.headers import find_format, read_header

    with _reading():
        if find_format(data):
            header = read_header(data, frame)
            _refuse_too_large(
                header.format, header.width, header.height, header.held, data, header.area
            )
            across, down = _read_resolution(open_image(data, header, frame))
            upright = decode_upright(data, frame, _LARGE_PIXELS)
            is_turned = header.orientation in (5, 6, 7, 8)
        else:
            with _open(data) as image:
                each = _BYTES_OF_FORMAT[str(image.format)]
                _refuse_too_large(str(image.format), *image.size, each, data)
                across, down = _read_resolution(image)
                is_turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
                upright = over_white(ImageOps.exif_transpose(_to_8_bits(image)))
    return _restore_shape(upright, *((down, across) if is_turned else (across, down)))


@contextmanager
def _reading() -> Iterator[None]:
    """Say in a sentence what is wrong with a picture: bad data can raise nearly any error."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (PagevecError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DocumentError("not a picture of a format that is read, or damaged") from None
    except struct.error:
        raise DocumentError(
            "the picture is damaged or incomplete: its file ends too early"
        ) from None
    except Image.DecompressionBombError:
        raise DocumentError(
            f"the picture has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: "
            "save it smaller"
        ) from None
    except Exception as error:
        raise DocumentError(f"the picture is damaged or incomplete: {error}") from None


def _open(data: bytes) -> "ImageFile":
    """Open a picture of a format that only ingestion reads, with the reader of that format."""
    from PIL import AvifImagePlugin, Image, Jpeg2KImagePlugin, UnidentifiedImageError

    if data.startswith(_JPEG_2000):
        formats = [Jpeg2KImagePlugin.Jpeg2KImageFile.format]
    elif data[4:8] != b"ftyp":
        raise UnidentifiedImageError
    elif data[8:12] in (b"avif", b"avis"):
        formats = [AvifImagePlugin.AvifImageFile.format]
    else:
        try:
            import pillow_heif
        except ImportError:
            raise DocumentError(f"HEIC needs {how_to_install('heic')}") from None
        pillow_heif.register_heif_opener()
        # Which of the two a general mark stands for, only they can tell.
        formats = [AvifImagePlugin.AvifImageFile.format, "HEIF"]
    return Image.open(BytesIO(data), formats=[str(one) for one in formats])


def _refuse_too_large(
    format_: str, width: int, height: int, each: int, data: bytes, area: int = 0
) -> None:
    """Refuse, before it is decoded, what would take more memory than a page may take.

    Args:
        format_: of the picture.
        width: in pixels.
        height: in pixels.
        each: bytes that a pixel takes while it is decoded.
        data: the file.
        area: pixels that decoding fills, where they are more.

    Raises:
        DocumentError: it would.
    """
    most = max(0, _MOST_BYTES - len(data)) // each
    if max(width * height, area) > most:
        raise DocumentError(
            f"the {format_} picture is {width:,} x {height:,} pixels"
            + (f" in tiles of {area:,}" if area > width * height else "")
            + f", but at most {most:,} pixels of its kind are read: save it smaller"
        )


def _read_resolution(image: "ImageFile") -> tuple[float, float]:
    """Return dots across and down, as stored, in any unit; both 1 if the file names none."""
    across, down = image.info.get("dpi") or image.info.get("resolution") or (1, 1)
    return float(across), float(down)


def _to_8_bits(image: "Image.Image") -> "Image.Image":
    """Return `image` itself, or its upper 8 bits where it has 16 of grey."""
    return image.point(lambda value: value / 256, "L") if image.mode == "I;16" else image


def _restore_shape(image: "Image.Image", across: float, down: float) -> "Image.Image":
    """Stretch a picture with other dots per inch across than down, such as a fax, to its shape."""
    if across <= 0 or down <= 0 or not 1.05 < max(across / down, down / across) < 4:
        return image
    width, height = image.size
    stretched = (
        (width, round(height * across / down))
        if across > down
        else (round(width * down / across), height)
    )
    if stretched[0] * stretched[1] > _LARGE_PIXELS:
        image = image.reduce(2)
        stretched = stretched[0] // 2, stretched[1] // 2
    return image.resize(stretched)


def _is_svg(data: bytes) -> bool:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_xml = head.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--"))
    return is_xml and b"<svg" in data[:65536]


def _read_svg(data: bytes) -> ElementTree.Element:
    """Return the SVG without references to anything but itself and pictures that it contains."""
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 - expat refuses entity bombs since 2.4.1
    except ElementTree.ParseError as error:
        raise DocumentError(f"the SVG is damaged: {error}") from None
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name.rpartition("}")[2] == "href" and not value.strip().startswith(_INSIDE):
                del element.attrib[name]
    return root


def _choose_width(root: ElementTree.Element) -> int:
    """Return how many pixels wide an SVG is drawn: fewer if it is far higher than wide."""
    sides = re.findall(r"[\d.]+(?:e[+-]?\d+)?", root.get("viewBox", ""))[2:] or [
        (re.match(r"[\d.]+", root.get(name, "")) or "1")[0] for name in ("width", "height")
    ]
    width, height = (max(1e-9, float(side)) for side in (sides * 2)[:2])
    return max(1, min(_SVG_PIXELS, round(math.sqrt(_MOST_SVG_PIXELS * width / height))))


def _draw_svg(data: bytes) -> "Image.Image":
    """Draw an SVG over white; nothing that it links to is loaded."""
    from PIL import Image

    try:
        import resvg_py
    except ImportError:
        raise DocumentError(f"SVG needs {how_to_install('svg')}") from None
    try:
        root = _read_svg(data)
        drawn = resvg_py.svg_to_bytes(
            svg_string=ElementTree.tostring(root, "unicode"),
            width=_choose_width(root),
            background="#ffffff",
        )
    except ValueError as error:
        raise DocumentError(f"the SVG cannot be drawn: {error}") from None
    return Image.open(BytesIO(bytes(drawn)), formats=["PNG"]).convert("RGB")
