"""The words of a page's text layer, and those of a query, as the terms that a store looks up.

Terms are made here and not by a database, so that all stores agree on them, and a query with the
pages. Words are folded (Unicode NFKC, no case, no accents) and then taken as they stand, since text
layers come in every language, and stems of one are errors in another.

Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between words, and Korean hangs
particles on them: their terms are overlapping pairs of characters, as in Lucene's analyzer of these
languages. SQLite's own `trigram` tokenizer finds no word of two characters, which most Chinese
words are; ICU cuts real words, but is not in the SQLite that comes with Python, nor in every
PostgreSQL, and cuts a query in another way than the sentence that it is to be found in.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

MOST_CHARACTERS, MOST_TERMS, MOST_QUERY_TERMS = 200_000, 20_000, 64
"""Of a page's text, of its terms, and of the different ones of a query; what follows is left out.
A dense page has 10,000 characters."""
_LONGEST = 64  # characters of a term; longer words are cut

# Sorting combining marks takes the square of their number, and no word has so many in a row.
_ENDLESS_MARKS = re.compile(r"([^\w\s\x00-\x7f]{32})[^\w\s\x00-\x7f]+")
# Soft hyphens, two of them as PDFium writes those at the end of a line; zero-width characters.
_SOFT_HYPHEN = re.compile("[\u00ad\ufffe\x02][ \r\n]{0,3}")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_HYPHEN_AT_END = re.compile(r"(?<=\w)[-\u2010][ \t\r]{0,8}\n[ \t]{0,64}(?=\w)")

_ACCENTS = "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670"
_ACCENT = re.compile(f"[{_ACCENTS}]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)

# Over kinds of characters, one letter each (see `_Kinds`).
_RUN = re.compile("u+|[wd]+(?:[-.][wd]+|(?<=d),(?=d)[wd]+)*")
_PART = re.compile("[wd]+")
_NUMBER = re.compile("d+(?:[.,]d+)+")
_THOUSANDS = re.compile(r"(?<=\d)[.,](?=\d{3}(?!\d))")


class _Kinds(dict[int, str]):
    """What each character is: `u` of a script without spaces, `d` a digit, `w` another of a word.

    `-`, `.` and `,` join parts of a word; all else is a space.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Nd":
            kind = "d"
        elif category[0] in "LMN":
            kind = "u" if _UNSPACED.match(character) else "w"
        else:
            kind = {"_": "-", "\u2010": "-", "'": ".", "\u2019": "."}.get(character, " ")
        if code < 0x20000:  # a text may have all characters there are
            self[code] = kind
        return kind


class _Digits(dict[int, str]):
    """The digits of all scripts as those of ASCII; every other character as it is."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) != "Nd":
            return character
        return str(unicodedata.decimal(character))


_KINDS = _Kinds({ord(one): one for one in "-.,"})
_DIGITS = _Digits()


@dataclass(frozen=True)
class _Term:
    """A term, and where its word is in the text."""

    text: str
    start: int
    end: int


def page_terms(text: str | None) -> list[str]:
    """Return the terms of a page's text, each as often and in the order in which it has them.

    Args:
        text: of any length and with any characters, NULs and lone surrogates among them.
    """
    folded = _fold(_clean((text or "")[:MOST_CHARACTERS]))
    return [term.text for term in islice(_terms(folded), MOST_TERMS)]


class QueryWords:
    """The words of a query.

    Args:
        query: as it was typed.

    Attributes:
        terms: what a store looks up, each once.
    """

    def __init__(self, query: str) -> None:
        self._query = _clean(query[:MOST_CHARACTERS])
        self._terms = list(islice(_query_terms(self._query), MOST_TERMS))
        self.terms = list(dict.fromkeys(term.text for term in self._terms))[:MOST_QUERY_TERMS]

    def spell(self, terms: Iterable[str]) -> tuple[str, ...]:
        """Return `terms` as the words that were typed, in their order and each once.

        Terms that overlap in the query, as those of a word and its parts do, are one word.
        """
        wanted = frozenset(terms)
        spans: list[tuple[int, int]] = []
        for term in sorted(self._terms, key=lambda one: (one.start, -one.end)):
            if term.text not in wanted:
                continue
            start, end = spans[-1] if spans else (0, 0)
            if term.start < end:
                spans[-1] = start, max(end, term.end)
            else:
                spans.append((term.start, term.end))
        return tuple(dict.fromkeys(self._query[start:end] for start, end in spans))


def _clean(text: str) -> str:
    """Return a text without what is not seen, its characters in their usual form."""
    if not text.isascii():
        text = _ENDLESS_MARKS.sub(r"\1", text)
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
        text = text[: 2 * MOST_CHARACTERS]  # one ligature of Arabic becomes eighteen letters
    # A hyphen stays one: nobody knows whether the word has it in the middle of a line, too.
    return _HYPHEN_AT_END.sub("-", _SOFT_HYPHEN.sub("", text))


def _fold(text: str) -> str:
    """Return a text without case and accents, and with the digits of ASCII."""
    text = text.casefold()
    if text.isascii():
        return text
    bare = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", bare).translate(_DIGITS)


def _terms(text: str) -> Iterator[_Term]:
    """Yield the terms of a text that is folded already."""
    kinds = text.translate(_KINDS)
    for run in _RUN.finditer(kinds):
        start, end = run.span()
        if kinds[start] == "u":
            for first in range(start, max(start + 1, end - 1)):
                last = min(first + 2, end)
                yield _Term(text[first:last], first, last)
            continue
        parts = [_Term(_cut(text[part.start() : part.end()]), *part.span())
                 for part in _PART.finditer(kinds, start, end)]  # fmt: skip
        if len(parts) > 1:
            yield _Term(_cut(_whole(text[start:end], run.group(), parts)), start, end)
        yield from parts


def _whole(word: str, kinds: str, parts: list[_Term]) -> str:
    """Return a word of several parts in one piece, however it is written: 1,234.5 as 1234.5."""
    if not _NUMBER.fullmatch(kinds):
        return "".join(part.text for part in parts)
    word = word.replace("'", "").replace("\u2019", "")  # as in Switzerland
    if not word.startswith("0"):
        word = _THOUSANDS.sub("", word)
    return word.replace(",", ".")


def _cut(term: str) -> str:
    return term[:_LONGEST]


def _query_terms(query: str) -> Iterator[_Term]:
    """Yield the terms of a query with the places of their words in it."""
    for run in _RUN.finditer(query.translate(_KINDS)):
        word = query[run.start() : run.end()]
        folded = _fold(word)
        for term in _terms(folded):
            # Where folding moves characters, as in Straße, the whole word stands for its parts.
            start, end = (term.start, term.end) if len(folded) == len(word) else (0, len(word))
            yield _Term(term.text, run.start() + start, run.start() + end)
