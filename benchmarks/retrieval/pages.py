"""Held-out pages as a PDF: fonts, words and layouts that the training never prints."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.retrieval.fonts import font_files
from benchmarks.retrieval.layouts import LAYOUTS, Sheet
from benchmarks.retrieval.vocabulary import Vocabulary
from benchmarks.retrieval.words import LISTS

SIZES = (10, 12, 14, 18, 24)

# Hairlines are drawn for posters, and condensed faces share their name with the upright ones.
_UNUSUAL = ("Hairline", "Thin", "Alt-")


@dataclass(frozen=True)
class HeldOutPage:
    """A page and what a query may ask of it.

    Attributes:
        number: in the PDF, from 1.
        size: of its running print, in points.
        words: in the order they stand there, in lower case, by kind (`Vocabulary`).
    """

    number: int
    size: int
    language: str
    layout: str
    words: dict[str, list[str]]


def write_pages(file: Path, count: int, fonts: Sequence[str] | None = None) -> list[HeldOutPage]:
    """Write a PDF of `count` A4 pages, the same ones each time; every size comes up equally often.

    `fonts` are paths of TrueType fonts; default: the families held out.

    Raises:
        FontsMissing, WordListMissing: Debian packages are not installed.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen.canvas import Canvas

    names = _registered(fonts or [path for path in font_files(held_out=True) if _usual(path)])
    canvas = Canvas(str(file), pagesize=A4, invariant=True)
    pages = [_draw(canvas, number, names) for number in range(1, count + 1)]
    canvas.save()
    return pages


def _draw(canvas: Any, number: int, fonts: list[str]) -> HeldOutPage:
    rng = random.Random(number)  # noqa: S311 - nothing secret: the same pages each time
    size = SIZES[number % len(SIZES)]
    language, layout = rng.choice(tuple(LISTS)), rng.choice(tuple(LAYOUTS))
    vocabulary = Vocabulary(rng, language)
    LAYOUTS[layout](Sheet(canvas, rng, vocabulary, rng.choice(fonts), size))
    canvas.showPage()
    return HeldOutPage(number, size, language, layout, vocabulary.printed)


def _usual(path: str) -> bool:
    return path.endswith(".ttf") and not any(word in path for word in _UNUSUAL)


def _registered(paths: Sequence[str]) -> list[str]:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    for path in paths:
        pdfmetrics.registerFont(TTFont(Path(path).stem, path))
    return [Path(path).stem for path in paths]
