"""Draw grey crops of pages, and record which letter and word is where: input and dense targets.

Geometry: a patch has 14 x 14 pixels, a cell (one visual token) 2 x 2 patches.
"""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from benchmarks.retrieval.fonts import random_font
from benchmarks.retrieval.words import fold
from PIL import Image, ImageDraw, ImageFont

PATCH, CELL = 14, 28
POINTS = 4  # on the middle line of a patch; the letter at each is a target
# 0 is "no letter".
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789.,-/%_ß"
_CLASS = {letter: number for number, letter in enumerate(LETTERS)}
_ABOVE, _BELOW = 0.74, 0.18  # of the font's size: the line of text around its baseline
_STEEPEST = 0.012  # slope of a page that was scanned askew, 0.7 degrees


Draw = Callable[[random.Random], str]  # returns the next word to print


@dataclass(frozen=True)
class Word:
    """A word on a crop.

    Attributes:
        text: the word, without case and accents.
        box: left, top, right and bottom, in pixels.
    """

    text: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Crop:
    """A piece of a page.

    Attributes:
        pixels: uint8 (height, width).
        points: int8 (rows, columns, POINTS), the letter at each point of each patch.
        words: the words that are completely inside.
    """

    pixels: np.ndarray
    points: np.ndarray
    words: list[Word]


def draw_crop(
    rng: random.Random, word: Draw, width: int, height: int, smallest: float, largest: float
) -> Crop:
    """Draw lines of text; sizes in pixels are log-uniform between `smallest` and `largest`."""
    slope = rng.uniform(-_STEEPEST, _STEEPEST) if rng.random() < 0.1 else 0.0
    scale = rng.choice((1.0, 1.0, 1.25, 1.5, 2.0))
    canvas = Image.new("L", (round(width * scale), round(height * scale)), 0)
    drawing = _Drawing(ImageDraw.Draw(canvas), scale, slope, width, height)
    size = smallest * (largest / smallest) ** rng.random()
    path = random_font(rng)
    pitch = rng.uniform(1.05, 1.6)
    baseline = rng.uniform(-0.2, 1.1) * size
    while baseline < height + size:
        if rng.random() < 0.15:
            path = random_font(rng)
        if rng.random() < 0.12:
            size = smallest * (largest / smallest) ** rng.random()
        drawing.line(rng, path, size, baseline, word)
        baseline += size * pitch * (1 if rng.random() < 0.93 else rng.uniform(1.2, 2.2))
    if rng.random() < 0.12:
        drawing.rules(rng)
    if slope:
        canvas = canvas.transform(
            canvas.size, Image.Transform.AFFINE, (1, 0, 0, -slope, 1, 0), Image.Resampling.BICUBIC
        )
    if scale != 1:
        canvas = canvas.resize((width, height), rng.choice(_FILTERS))
    return Crop(_coloured(rng, canvas), drawing.points, drawing.words)


_FILTERS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
)


class _Drawing:
    def __init__(
        self, draw: ImageDraw.ImageDraw, scale: float, slope: float, width: int, height: int
    ) -> None:
        self._draw, self._scale, self._slope = draw, scale, slope
        self._width, self._height = width, height
        rows, columns = height // PATCH, width // PATCH
        self.points = np.zeros((rows, columns, POINTS), dtype=np.int8)
        self.words: list[Word] = []
        self._xs = (np.arange(columns * POINTS) + 0.5) * (PATCH / POINTS)
        self._ys = (np.arange(rows) + 0.5) * PATCH

    def line(self, rng, path, size, baseline, word) -> None:
        face = font(path, max(6, round(size * self._scale)))
        size = face.size / self._scale
        space = face.getlength(" ") / self._scale * rng.uniform(0.9, 1.5)
        ink = 255 if rng.random() < 0.7 else rng.randint(120, 255)
        x = (
            rng.uniform(-1.5, 1.5) * size
            if rng.random() < 0.6
            else rng.uniform(0, self._width * 0.6)
        )
        while x < self._width:
            text = word(rng)
            before, after = rng.choice(_AROUND) if rng.random() < 0.15 else ("", "")
            x = self._word(face, before, x, baseline, size, ink, False)
            x = self._word(face, text, x, baseline, size, ink, True)
            x = self._word(face, after, x, baseline, size, ink, False) + space
            if rng.random() < 0.05:
                x += rng.uniform(1, 6) * size
            if rng.random() < 0.02:
                break

    def _word(self, face, text, x, baseline, size, ink, is_word) -> float:
        if not text:
            return x
        self._draw.text(
            (x * self._scale, baseline * self._scale), text, font=face, fill=ink, anchor="ls"
        )
        edges = x + np.cumsum([0.0] + [_advance(face, letter) for letter in text]) / self._scale
        if is_word:
            middle = baseline + self._slope * (edges[0] + edges[-1]) / 2
            self._mark(text, edges, middle - _ABOVE * size, middle + _BELOW * size)
        return float(edges[-1])

    def _mark(self, text, edges, top, bottom) -> None:
        rows = np.flatnonzero((self._ys >= top) & (self._ys < bottom))
        classes = np.array([_CLASS.get(fold(letter)[:1], 0) for letter in text], dtype=np.int8)
        if len(rows):
            at = np.searchsorted(edges, self._xs, side="right") - 1
            inside = (at >= 0) & (at < len(text))
            flat = self.points[rows[0] : rows[-1] + 1].reshape(len(rows), -1)
            flat[:, inside] = classes[at[inside]]
        whole = (
            edges[0] >= 0 and edges[-1] <= self._width and top >= -2 and bottom <= self._height + 2
        )
        if whole:
            self.words.append(Word(fold(text), (edges[0], top, edges[-1], bottom)))

    def rules(self, rng) -> None:
        """Draw rules, as in tables and charts."""
        width, height = self._width * self._scale, self._height * self._scale
        for _ in range(rng.randint(1, 4)):
            ink, thick = rng.randint(80, 255), rng.randint(1, 3)
            if rng.random() < 0.5:
                y = rng.uniform(0, height)
                self._draw.line((0, y, width, y), fill=ink, width=thick)
            else:
                x = rng.uniform(0, width)
                self._draw.line((x, 0, x, height), fill=ink, width=thick)


_AROUND = (
    ("", "."), ("", ","), ("", ","), ("(", ")"), ("", ":"), ("", ";"), ('"', '"'), ("«", "»"),
    ("", "?"), ("", "!"), ("- ", ""), ("• ", ""), ("$", ""), ("", " €"),
)  # fmt: skip
_advances: dict = {}


@cache
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font at a size in pixels."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _advance(face, letter: str) -> float:
    key = (face.path, face.size, letter)
    if key not in _advances:
        _advances[key] = face.getlength(letter)
    return _advances[key]


def _coloured(rng: random.Random, mask: Image.Image) -> np.ndarray:
    """Return ink on paper: mostly dark on light, sometimes light on dark or with scanner noise."""
    ink = np.asarray(mask, dtype=np.float32) / 255
    paper, text = rng.uniform(215, 255), rng.uniform(0, 90)
    if rng.random() < 0.5:
        paper, text = 255.0, rng.uniform(0, 20)
    if rng.random() < 0.12:
        paper, text = rng.uniform(0, 90), rng.uniform(190, 255)
    grey = paper + (text - paper) * ink
    if rng.random() < 0.2:
        noise = np.random.default_rng(rng.getrandbits(32))
        grey = grey + noise.standard_normal(grey.shape, dtype=np.float32) * rng.uniform(1, 8)
    pixels = grey.clip(0, 255).astype(np.uint8)
    return _as_jpeg(rng, pixels) if rng.random() < 0.12 else pixels


def _as_jpeg(rng: random.Random, pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=rng.randint(45, 90))
    return np.asarray(Image.open(buffer))
