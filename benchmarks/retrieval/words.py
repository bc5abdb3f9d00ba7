"""What is printed on the pages: words of five languages, and strings that are in no dictionary.

One word in twenty is held out: the training never prints it.
"""

import hashlib
import random
import string
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from benchmarks import BenchmarkFailed

LISTS = {
    "english": "american-english",
    "german": "ngerman",
    "french": "french",
    "spanish": "spanish",
    "italian": "italian",
}
PACKAGES = "wamerican wngerman wfrench wspanish witalian"

_DIRECTORY = Path("/usr/share/dict")
_HELD_OUT_SHARE = 20
_COMMON = {
    "english": "the of and to in is that for it as was with be by on not he his but at are this",
    "german": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als",
    "french": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se",
    "spanish": "de la que el en y a los del se las por un para con no una su al lo como más",
    "italian": "di e il la che in a per un del è con non una su le si da come dei nel alla più",
}
_SHARES = {"common": 0.3, "known": 0.38, "unseen": 0.2, "number": 0.08, "name": 0.04}
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxz"


class WordListMissing(BenchmarkFailed):
    """A word list is not installed; the message names the Debian packages."""


def fold(word: str) -> str:
    """Return the word without case and accents, as the bundled model's tokenizer reads it."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def is_held_out(word: str) -> bool:
    """Whether the training leaves this word out (in every case and with any accents)."""
    digest = hashlib.md5(fold(word).encode(), usedforsecurity=False).digest()
    return digest[0] % _HELD_OUT_SHARE == 0


@cache
def read_dictionary(language: str, held_out: bool) -> tuple[str, ...]:
    """Return a language's words of 2 to 16 letters, in the order of its list.

    Raises:
        WordListMissing: it is not installed.
    """
    path = _DIRECTORY / LISTS[language]
    if not path.exists():
        raise WordListMissing(f"{path} is missing: apt-get install {PACKAGES}")
    words = path.read_text(encoding="utf-8").split()
    fit = (word for word in words if 2 <= len(word) <= 16 and word.isalpha())
    return tuple(word for word in fit if is_held_out(word) == held_out)


def draw_word(rng: random.Random) -> str:
    """Return a word that is not held out, a number, a part number or a name, as printed."""
    kind = rng.random()
    if kind < 0.66:
        language = rng.choice(tuple(LISTS))
        return vary_case(rng, rng.choice(read_dictionary(language, held_out=False)))
    if kind < 0.8:
        return draw_number(rng)
    if kind < 0.9:
        return draw_part_number(rng)
    return vary_case(rng, draw_name(rng) if rng.random() < 0.6 else _letters(rng, 2, 10))


def vary_case(rng: random.Random, word: str) -> str:
    """Return the word as it stands, with a capital, or in capitals."""
    choice = rng.random()
    if choice < 0.72:
        return word
    return word.capitalize() if choice < 0.92 else word.upper()


def draw_number(rng: random.Random) -> str:
    """Return an exact number: a count, an amount, a year, a date or a percentage."""
    forms = (
        str(rng.randint(0, 10 ** rng.randint(1, 7))),
        f"{rng.randint(1, 999999):,}",
        f"{rng.uniform(0, 10 ** rng.randint(1, 4)):.{rng.randint(1, 3)}f}",
        str(rng.randint(1850, 2099)),
        f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(1990, 2039)}",
        f"{rng.randint(1, 100)}%",
    )
    return rng.choice(forms)


def draw_part_number(rng: random.Random) -> str:
    """Return letters and digits in one to three groups."""
    alphabets: Sequence[str] = (string.digits, string.digits, string.ascii_uppercase)
    groups = [_letters(rng, 1, 5, alphabet=rng.choice(alphabets)) for _ in range(rng.randint(1, 3))]
    return rng.choice("-/.-_").join(groups)


def draw_name(rng: random.Random) -> str:
    """Return an invented, pronounceable word."""
    syllables = (
        rng.choice(_CONSONANTS) + rng.choice(_VOWELS) + rng.choice(("", "", rng.choice("nrlst")))
        for _ in range(rng.randint(2, 4))
    )
    return "".join(syllables).capitalize()


class Vocabulary:
    """Draws the words of one held-out page and remembers what was printed.

    There are common words, known ones, unseen ones that training never prints, numbers and names.

    Attributes:
        printed: the words on the page by kind, as a query would write them.
    """

    def __init__(self, rng: random.Random, language: str) -> None:
        self._rng = rng
        self._draw: dict[str, Callable[[], str]] = {
            "common": lambda: rng.choice(_COMMON[language].split()),
            "known": lambda: rng.choice(read_dictionary(language, held_out=False)),
            "unseen": lambda: rng.choice(read_dictionary(language, held_out=True)),
            "number": lambda: rng.choice((draw_number, draw_part_number))(rng),
            "name": lambda: draw_name(rng),
        }
        self.printed: dict[str, list[str]] = {kind: [] for kind in self._draw}

    def word(self) -> tuple[str, str]:
        """Return a word as it is printed, and its kind; call `keep` if it is printed."""
        [kind] = self._rng.choices(tuple(_SHARES), tuple(_SHARES.values()))
        text = self._draw[kind]()
        return (vary_case(self._rng, text) if kind in ("known", "unseen") else text), kind

    def number(self) -> tuple[str, str]:
        """Return a number for a table or a chart, and its kind."""
        return self._draw["number"](), "number"

    def keep(self, text: str, kind: str) -> None:
        """Remember that the word stands on the page."""
        self.printed[kind].append(text.lower())


def _letters(
    rng: random.Random, shortest: int, longest: int, alphabet: str = string.ascii_lowercase
) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(shortest, longest)))
