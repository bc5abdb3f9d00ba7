"""A page in every kind of file, and the pixels that each holds."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from image_files import encode, tiff
from pagevec.images import read_image

Array = np.ndarray[Any, Any]
WHITE = (255, 255, 255)
# Pillow warns about damaged TIFF directories; pytest unsets the filter of `pagevec.images.decode`.
HARMLESS_WARNINGS = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def pixels(data: bytes) -> Array:
    """(height, width, 3) as decoded, after checking what every decoded image promises."""
    encoded = read_image(data)
    image = encoded.decode()
    assert image.mode == "RGB"
    assert image.size == (encoded.width, encoded.height)
    return np.asarray(image).astype(int)


def samples(channels: int, depth: int, seed: int = 0) -> Array:
    """Random samples (13, 21, channels); the size is odd so that rows end inside a byte."""
    return np.random.default_rng(seed).integers(0, 2**depth, (13, 21, channels))


def over_white(colour: Array, alpha: Array) -> Array:
    return 255 - (255 - colour.astype(float)) * alpha[..., None] / 255


def page(width: int = 96, height: int = 128) -> Image.Image:
    """A small page: text-like strokes, a smooth part, a coloured corner, a white bottom."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for y in range(30, height - 20, 9):
        draw.text((4, y), "embedding pages", fill=(y, 20, 60))
    shade = Image.linear_gradient("L").resize((width // 2, 24))
    image.paste(Image.merge("RGB", (shade, shade.rotate(180), shade)), (width // 2, 2))
    draw.rectangle((0, 0, 20, 12), fill=(220, 30, 40))
    return image


PAGE = page()
GREY = PAGE.convert("L")
PALETTE = PAGE.quantize(32)
ALPHA = Image.linear_gradient("L").resize(PAGE.size)
RGBA = Image.merge("RGBA", (*PAGE.split(), ALPHA))
BILEVEL = PAGE.convert("1", dither=Image.Dither.NONE)
FLOAT = np.asarray(GREY).astype("<f4") / 255
CMYK = Image.merge("CMYK", (*PAGE.split(), ALPHA))

FILES = {
    "png": encode(PAGE, "PNG"),
    "png-palette": encode(PALETTE, "PNG", transparency=bytes(range(0, 256, 8))),
    "png-bilevel": encode(BILEVEL, "PNG"),
    "jpeg": encode(PAGE, "JPEG", quality=90),
    "jpeg-grey": encode(GREY, "JPEG"),
    "jpeg-progressive": encode(PAGE, "JPEG", progressive=True),
    "jpeg-restarts": encode(PAGE, "JPEG", restart_marker_blocks=5),
    "jpeg-cmyk": encode(CMYK, "JPEG"),
    "webp": encode(PAGE, "WEBP"),
    "webp-lossless": encode(PAGE, "WEBP", lossless=True),
    "webp-alpha": encode(RGBA, "WEBP"),
    "gif": encode(PALETTE, "GIF"),
    "gif-transparent": encode(PALETTE, "GIF", transparency=3),
    "bmp": encode(PAGE, "BMP"),
    "bmp-palette": encode(PALETTE, "BMP"),
    "tiff": encode(PAGE, "TIFF"),
    "tiff-directory-first": tiff(PAGE.tobytes(), *PAGE.size, (8, 8, 8), photometric=2),
    "tiff-lzw": encode(PAGE, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": encode(PAGE, "TIFF", compression="tiff_deflate"),
    "tiff-packbits": encode(PAGE, "TIFF", compression="packbits"),
    "tiff-jpeg": encode(PAGE, "TIFF", compression="jpeg"),
    "tiff-group4": encode(BILEVEL, "TIFF", compression="group4"),
    "tiff-float": tiff(FLOAT.tobytes(), *GREY.size, (32,), photometric=1, sample_format=3),
}
TRUE_PIXELS = {name: pixels(data) for name, data in FILES.items()}
