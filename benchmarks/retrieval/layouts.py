"""Layouts of held-out pages: columns, tables, lists, code, charts.

Coordinates are PDF points from the lower left corner of an A4 page.
"""

import random
from collections.abc import Callable
from typing import Any

from benchmarks.retrieval.words import Vocabulary

WIDTH, HEIGHT = 595.0, 842.0
_MARGIN = 56.0


class Sheet:
    """A page being drawn; the vocabulary remembers what is printed."""

    def __init__(
        self, canvas: Any, rng: random.Random, vocabulary: Vocabulary, font: str, size: int
    ) -> None:
        self.canvas, self.rng, self._vocabulary = canvas, rng, vocabulary
        self.font, self.size = font, size
        self.pitch = size * rng.uniform(1.15, 1.45)

    def heading(self, top: float) -> float:
        """Write a line in larger print; return where the next line goes."""
        size, self.size = self.size, round(self.size * self.rng.uniform(1.3, 1.7))
        self.line(_MARGIN, top - self.size, self.rng.uniform(0.4, 0.9) * (WIDTH - 2 * _MARGIN))
        top, self.size = top - 1.9 * self.size, size
        return top

    def line(self, x: float, y: float, width: float, number: bool = False) -> None:
        """Write words from `x` on, on the baseline `y`, as many as fit into `width`."""
        end, draw = x + width, self._vocabulary.number if number else self._vocabulary.word
        space = self._measure(" ")
        while True:
            text, kind = draw()
            if x + self._measure(text) > end:
                return
            mark = self.rng.choice((",", ".", ";", ":")) if self.rng.random() < 0.1 else ""
            self.write(x, y, text + mark)
            self._vocabulary.keep(text, kind)
            x += self._measure(text + mark) + space

    def write(self, x: float, y: float, text: str) -> None:
        """Write text that no query asks for."""
        self.canvas.setFont(self.font, self.size)
        self.canvas.drawString(x, y, text)

    def paragraphs(self, x: float, top: float, width: float, bottom: float) -> None:
        """Fill a column down to `bottom` with paragraphs."""
        while top - self.pitch > bottom:
            lines = self.rng.randint(2, 8)
            for number in range(lines):
                top -= self.pitch
                if top < bottom:
                    return
                last = number == lines - 1
                self.line(x, top, width * (self.rng.uniform(0.3, 0.9) if last else 1))
            top -= self.pitch * 0.6

    def _measure(self, text: str) -> float:
        from reportlab.pdfbase.pdfmetrics import stringWidth

        return float(stringWidth(text, self.font, self.size))


def _choose_bottom(sheet: Sheet) -> float:
    # Real pages are seldom full: print takes a third of the height to all of it.
    return _MARGIN + (HEIGHT - 2 * _MARGIN) * sheet.rng.choice(
        (0.0, 0.0, sheet.rng.uniform(0, 0.6))
    )


def one_column(sheet: Sheet) -> None:
    """A heading and paragraphs."""
    top = sheet.heading(HEIGHT - _MARGIN)
    sheet.paragraphs(_MARGIN, top, WIDTH - 2 * _MARGIN, _choose_bottom(sheet))


def two_columns(sheet: Sheet) -> None:
    """A heading and two columns."""
    top, width = sheet.heading(HEIGHT - _MARGIN), (WIDTH - 2.5 * _MARGIN) / 2
    for column in range(2):
        sheet.paragraphs(
            _MARGIN + column * (width + _MARGIN / 2), top, width, _choose_bottom(sheet)
        )


def bullets(sheet: Sheet) -> None:
    """A heading and a list."""
    top, bottom = sheet.heading(HEIGHT - _MARGIN), _choose_bottom(sheet)
    while top - 1.5 * sheet.pitch > bottom:
        top -= 1.5 * sheet.pitch
        sheet.write(_MARGIN, top, "•")
        sheet.line(_MARGIN + 1.5 * sheet.size, top, sheet.rng.uniform(0.3, 0.95) * 430)


def table(sheet: Sheet) -> None:
    """A heading and a ruled table of words and numbers."""
    top, bottom = sheet.heading(HEIGHT - _MARGIN), _choose_bottom(sheet)
    columns = 4 if sheet.size < 13 else 3 if sheet.size < 20 else 2
    width, high = (WIDTH - 2 * _MARGIN) / columns, 1.7 * sheet.size
    sheet.canvas.setLineWidth(0.6)
    while top - high > bottom:
        for column in range(columns):
            x = _MARGIN + column * width
            sheet.canvas.rect(x, top - high, width, high)
            number = column > 0 and sheet.rng.random() < 0.5
            sheet.line(x + 4, top - 0.72 * high, width - 8, number=number)
        top -= high


def code(sheet: Sheet) -> None:
    """Indented lines, light on dark."""
    rng, canvas = sheet.rng, sheet.canvas
    canvas.setFillGray(rng.uniform(0, 0.25))
    canvas.rect(0, 0, WIDTH, HEIGHT, stroke=0, fill=1)
    canvas.setFillGray(rng.uniform(0.8, 1))
    top, bottom = HEIGHT - _MARGIN, _choose_bottom(sheet)
    while top > bottom:
        top -= sheet.pitch
        indent = 2 * sheet.size * rng.randint(0, 3)
        sheet.line(_MARGIN + indent, top, rng.uniform(0.3, 1) * (WIDTH - 2 * _MARGIN - indent))


def chart(sheet: Sheet) -> None:
    """Labelled bars, and a paragraph below them."""
    rng, canvas = sheet.rng, sheet.canvas
    top = sheet.heading(HEIGHT - _MARGIN)
    for _ in range(rng.randint(4, 7)):
        top -= 2 * sheet.size
        sheet.line(_MARGIN, top, 190)
        length = rng.uniform(20, 150)
        canvas.setFillGray(rng.uniform(0.3, 0.8))
        canvas.rect(_MARGIN + 200, top, length, sheet.size, stroke=0, fill=1)
        canvas.setFillGray(0)
        sheet.line(_MARGIN + 210 + length, top, 120, number=True)
    sheet.paragraphs(_MARGIN, top - sheet.size, WIDTH - 2 * _MARGIN, _choose_bottom(sheet))


LAYOUTS: dict[str, Callable[[Sheet], None]] = {
    "one column": one_column,
    "two columns": two_columns,
    "list": bullets,
    "table": table,
    "code": code,
    "chart": chart,
}
