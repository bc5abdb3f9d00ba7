"""What is sent: drawn pages and short texts, the same ones in every run."""

import base64
import json
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pagevec.images import EncodedImage, read_image
from pagevec.types import InputType

# Pixels at 150 dpi: A4, folded again and again, down to the smallest page that a model takes.
SIZES = {
    "A4": (1240, 1754),
    "A5": (877, 1240),
    "A6": (620, 877),
    "A7": (438, 620),
    "A8": (310, 438),
    "A9": (219, 310),
    "A10": (155, 219),
    "receipt": (400, 1200),
    "dot": (28, 28),
}
_A4 = SIZES["A4"]
_MARGIN, _LINE = 100, 34
_WORDS = (
    "annual report of the harbour ferry total passengers winter route north quay ticket price "
    "cost per crossing repair fuel crew and in for by each which season revenue map timetable"
)


def make_pages(count: int, size: tuple[int, int] = _A4) -> list[bytes]:
    """Return `count` different PNG files: a headline, paragraphs, a bar chart; cut to `size`."""
    pages = (_draw_page(np.random.default_rng(seed)) for seed in range(count))
    return [_png(page.crop((0, 0, *size))) for page in pages]


def make_images(count: int, size: tuple[int, int] = _A4) -> list[EncodedImage]:
    """Return the pages of `make_pages` as the engine takes them."""
    return [read_image(file) for file in make_pages(count, size)]


def make_headlines(count: int) -> list[str]:
    """Return the headlines of the first `count` pages."""
    return [_headline(np.random.default_rng(seed)) for seed in range(count)]


def make_texts(count: int) -> list[str]:
    """Return `count` questions of 10 to 60 characters."""
    generator = np.random.default_rng(150)
    return [_sentence(generator, int(generator.integers(10, 61))) for _ in range(count)]


def make_bodies(kind: InputType, inputs: list[str], size: int) -> list[bytes]:
    """Return request bodies of `size` inputs each, which together hold every input."""
    filled = inputs + inputs[: -len(inputs) % size]
    return [
        json.dumps({"input_type": kind, "inputs": filled[start : start + size]}).encode()
        for start in range(0, len(filled), size)
    ]


def encode_base64(pages: list[bytes]) -> list[str]:
    """Return image files as the inputs of a request."""
    return [base64.b64encode(page).decode() for page in pages]


def _draw_page(generator: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", _A4, "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), _headline(generator), "navy", ImageFont.load_default(46))
    font = ImageFont.load_default(22)
    for y in range(2 * _MARGIN, 1100, _LINE):
        if generator.random() < 0.9:  # else a paragraph ends
            draw.text((_MARGIN, y), _sentence(generator, 90), "black", font)
    for bar, height in enumerate(generator.integers(50, 450, 12).tolist()):
        left = _MARGIN + 85 * bar
        draw.rectangle((left, 1650 - height, left + 60, 1650), fill="steelblue")
    return page


def _headline(generator: np.random.Generator) -> str:
    return _sentence(generator, 40)


def _sentence(generator: np.random.Generator, length: int) -> str:
    words = " ".join(generator.choice(_WORDS.split(), 1 + length // 3).tolist())
    return words[:length].strip()


def _png(page: Image.Image) -> bytes:
    file = BytesIO()
    page.save(file, "PNG")
    return file.getvalue()
