"""Text and Markdown -> pieces that overlap, so that no sentence is only ever seen in halves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagevec.ingest.page import Pages, SourcePage

TEXTS = frozenset({".txt", ".md"})

PIECE = 2000  # characters: about a page's words
OVERLAP = 200


@contextmanager
def open_text(document: Path) -> Iterator[Pages]:
    """Open a text file (UTF-8; what is not valid is replaced)."""
    pieces = split(document.read_text(encoding="utf-8", errors="replace"))

    def make(number: int) -> SourcePage:
        return SourcePage(number, pieces[number - 1], text=pieces[number - 1])

    yield Pages(len(pieces), make)


def split(text: str, piece: int = PIECE, overlap: int = OVERLAP) -> list[str]:
    """Cut `text` into pieces of at most `piece` characters that share `overlap` with the next.

    Cuts are made at the last blank line, line end, sentence or word end of a piece's second half.
    """
    pieces = []
    start = 0
    while len(text) - start > piece:
        end = _cut(text, start + piece // 2, start + piece)
        pieces.append(text[start:end])
        start = max(start + 1, end - overlap)
    return [*pieces, text[start:]]


def _cut(text: str, earliest: int, latest: int) -> int:
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, earliest, latest)
        if found >= 0:
            return found + len(mark)
    return latest
