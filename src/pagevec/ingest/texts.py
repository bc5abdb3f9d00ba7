"""Text and Markdown -> pieces that overlap, so that no sentence is only ever seen in halves."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagevec.errors import DocumentError
from pagevec.ingest.page import Pages, ReadOptions, SourcePage

PIECE = 2000  # characters: about a page's words
OVERLAP = 200

# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Bytes that the encoding is guessed from; guessing takes a second for a megabyte.
_SAMPLE = 200_000
# Characters that no text has; tabs, line ends and form feeds are others.
_CONTROL = frozenset(map(chr, {*range(32), 127} - {8, 9, 10, 11, 12, 13, 27}))
_MOST_CONTROL = 0.02


@contextmanager
def open_text(document: Path, options: ReadOptions) -> Iterator[Pages]:
    """Open a text file of any encoding.

    Raises:
        DocumentError: it is binary, or its encoding cannot be told.
    """
    text, warnings = decode(document.read_bytes())
    pieces = split(text) if text.strip() else []

    def make(number: int) -> SourcePage:
        return SourcePage(number, pieces[number - 1], text=pieces[number - 1])

    yield Pages(len(pieces), make, warnings)


def decode(content: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text in `content`, and warnings where its encoding was guessed.

    A byte order mark decides, then UTF-8; what is neither is guessed from its first 200,000 bytes.

    Raises:
        DocumentError: it is binary, or its encoding cannot be told.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            text = content[len(mark) :].decode(encoding, "replace")
            lost = text.count("\ufffd")
            return text, (f"{lost} characters were not valid {encoding}",) if lost else ()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _guess(content)
    if sum(map(text.count, _CONTROL)) > _MOST_CONTROL * len(text) + 1:
        return _guess(content)
    return text, ()


def _guess(content: bytes) -> tuple[str, tuple[str, ...]]:
    import chardet

    guessed = chardet.detect(content[:_SAMPLE])["encoding"]
    if guessed is None:
        raise DocumentError("the file is binary, not text")
    text = content.decode(guessed, "replace")
    lost = text.count("\ufffd")
    if lost > _MOST_CONTROL * len(text) + 1:
        raise DocumentError(f"the text is neither UTF-8 nor {guessed}: save it as UTF-8")
    return text, (f"the text is not UTF-8; it was read as {guessed}",)


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
