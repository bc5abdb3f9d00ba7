"""Images as callers have them -> image files, resized to the model's grid where that is smaller.

Pillow is needed for Pillow's images, for arrays and for resizing; without it files go as they are.
"""

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pagevec.client import png
from pagevec.errors import InvalidImage
from pagevec.grid import PageResizing

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8] | Picture"
"""A path, the bytes of an image file, a Pillow image, or uint8 pixels: (h, w), (h, w, 3 or 4)."""

_LONGEST_WEBP_SIDE = 16383


def image_file(image: ImageInput, resizing: PageResizing | None) -> bytes:
    """Return the bytes of an image file to send; `resizing` None leaves the size as it is.

    Raises:
        InvalidImage: it cannot be read, or it is not an image.
    """
    if isinstance(image, (str, os.PathLike)):
        image = _read(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _smaller_file(bytes(image), resizing)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not hasattr(image, "save"):
        raise InvalidImage(f"{type(image).__name__} is no image")
    return _encoded(image, resizing)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidImage(f"{path} cannot be read: {error.strerror}") from error


def _smaller_file(data: bytes, resizing: PageResizing | None) -> bytes:
    """Return a PNG file resized, or `data` where that is no gain or not safe.

    Other formats are small already, or Pillow cannot tell when they are damaged.
    """
    size = png.size_of(data)
    if resizing is None or size is None or not _shrinks(size, resizing):
        return data
    if not png.is_plain_and_whole(data):
        return data
    try:
        from PIL import Image
    except ImportError:
        return data
    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            image.load()  # EXIF may stand behind the pixels
            return min(_encoded(image, resizing), data, key=len)
    except Exception:  # whatever Pillow raises: the service says what is wrong
        return data


def _shrinks(size: tuple[int, int], resizing: PageResizing) -> bool:
    wide, high = resizing.resized(*size)
    # Sizes that the model would resize once more would change its vectors.
    return wide * high < size[0] * size[1] and resizing.resized(wide, high) == (wide, high)


def _from_array(pixels: NDArray[Any]) -> "Picture":
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise InvalidImage(f"pixels are uint8 (h, w) or (h, w, 3 or 4), not {pixels.shape}")
    try:
        from PIL import Image
    except ImportError:
        raise InvalidImage("arrays need Pillow: pip install pillow") from None
    try:
        return Image.fromarray(pixels)
    except (TypeError, ValueError) as error:
        raise InvalidImage(f"pixels of shape {pixels.shape} are no image: {error}") from None


def _encoded(image: "Picture", resizing: PageResizing | None) -> bytes:
    upright = _over_white(_upright(image))
    if resizing is None or not _shrinks(upright.size, resizing):
        return _saved(upright, "PNG", compress_level=1)
    return _compact(_resized(upright, resizing))


def _upright(image: "Picture") -> "Picture":
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _over_white(image: "Picture") -> "Picture":
    from PIL import Image

    if image.mode[0] in "IF":
        raise InvalidImage(f"an image of mode {image.mode} has no fixed white; convert it to L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _resized(image: "Picture", resizing: PageResizing) -> "Picture":
    """Resize as transformers does: bicubic with antialiasing, white added to a long page first."""
    from PIL import Image

    padded = resizing.padded(*image.size)
    if padded != image.size:
        canvas = Image.new("RGB", padded, "white")
        canvas.paste(image)
        image = canvas
    return image.resize(resizing.resized(*image.size), Image.Resampling.BICUBIC)


def _compact(image: "Picture") -> bytes:
    """Save without loss: WebP takes about half of PNG's bytes on resized pages."""
    from PIL import features

    if max(image.size) <= _LONGEST_WEBP_SIDE and features.check("webp"):
        # The fast end of WebP's scale: more effort takes 2 to 5 times as long for 10 % fewer bytes.
        return _saved(image, "WEBP", lossless=True, method=1, quality=20)
    return _saved(image, "PNG", compress_level=1)


def _saved(image: "Picture", format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()
