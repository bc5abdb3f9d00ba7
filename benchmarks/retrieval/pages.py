"""Held-out pages and their queries: fonts, words and layouts that training never prints."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.retrieval.fonts import find_fonts
from benchmarks.retrieval.layouts import LAYOUTS, Sheet
from benchmarks.retrieval.words import LISTS, Vocabulary, fold

SIZES = (10, 12, 14, 18, 24)
KINDS = ("known", "known", "unseen", "unseen", "number")
_TRIES = 200

# Hairlines are made for posters, and condensed faces share their name with the regular ones.
_UNUSUAL = ("Hairline", "Thin", "Alt-")


@dataclass(frozen=True)
class HeldOutPage:
    """A page and what a query may ask of it.

    Attributes:
        number: its number in the PDF, from 1.
        size: size of its body text, in points.
        language: language of its words.
        layout: name of its layout.
        words: its words by kind (see `Vocabulary`), in lower case, in the order of the page.
    """

    number: int
    size: int
    language: str
    layout: str
    words: dict[str, list[str]]


@dataclass(frozen=True)
class Query:
    """A query and the one page that answers it.

    Attributes:
        text: one to five words, or an exact number.
        kind: `known` (words that training may print), `unseen` (words that it never prints) or
            `number`.
        page: the only page with all of these words.
    """

    text: str
    kind: str
    page: HeldOutPage


def write_pages(file: Path, count: int, fonts: Sequence[str] | None = None) -> list[HeldOutPage]:
    """Write a PDF of `count` A4 pages, the same ones each time; all sizes are equally frequent.

    Args:
        file: where the PDF goes.
        count: number of pages.
        fonts: paths of TrueType fonts; default: the families that are held out.

    Raises:
        FontsMissing, WordListMissing: Debian packages are not installed.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen.canvas import Canvas

    names = _register(fonts or [path for path in find_fonts(held_out=True) if _is_usual(path)])
    canvas = Canvas(str(file), pagesize=A4, invariant=True)
    pages = [_draw(canvas, number, names) for number in range(1, count + 1)]
    canvas.save()
    return pages


def make_queries(pages: Sequence[HeldOutPage]) -> list[Query]:
    """Return a query for each page that can have one, the same ones each time."""
    contents = [
        frozenset(fold(word) for words in page.words.values() for word in words) for page in pages
    ]
    queries = (_make_query(page, contents) for page in pages)
    return [query for query in queries if query is not None]


def _draw(canvas: Any, number: int, fonts: list[str]) -> HeldOutPage:
    rng = random.Random(number)  # noqa: S311 - nothing secret: the same pages each time
    size = SIZES[number % len(SIZES)]
    language, layout = rng.choice(tuple(LISTS)), rng.choice(tuple(LAYOUTS))
    vocabulary = Vocabulary(rng, language)
    LAYOUTS[layout](Sheet(canvas, rng, vocabulary, rng.choice(fonts), size))
    canvas.showPage()
    return HeldOutPage(number, size, language, layout, vocabulary.printed)


def _is_usual(path: str) -> bool:
    return path.endswith(".ttf") and not any(word in path for word in _UNUSUAL)


def _register(paths: Sequence[str]) -> list[str]:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    for path in paths:
        pdfmetrics.registerFont(TTFont(Path(path).stem, path))
    return [Path(path).stem for path in paths]


def _make_query(page: HeldOutPage, contents: Sequence[frozenset[str]]) -> Query | None:
    rng = random.Random(-page.number)  # noqa: S311 - nothing secret: the same queries each time
    first = rng.choice(KINDS)
    for kind in (first, "known", "unseen"):
        words = [word for word in page.words[kind] if len(word) > 2]
        for _ in range(_TRIES if words else 0):
            count = 1 if kind == "number" else rng.randint(1, min(5, len(words)))
            asked = rng.sample(words, count)
            if _are_on_one_page({fold(word) for word in asked}, contents):
                return Query(" ".join(asked), kind, page)
    return None


def _are_on_one_page(words: set[str], contents: Sequence[frozenset[str]]) -> bool:
    return sum(words <= content for content in contents) == 1
