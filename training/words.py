"""What is printed on the pages: words of five languages, and strings that no dictionary has.

A twentieth of the dictionaries' words is held out: the training never prints one of them.
"""

import hashlib
import random
import string
import unicodedata
from functools import cache
from pathlib import Path

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
_LETTERS = string.ascii_lowercase
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxz"


def folded(word: str) -> str:
    """Return the word without case and accents, as the tokenizer reads it."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def is_held_out(word: str) -> bool:
    """Whether the training leaves this word out (in every case and with any accents)."""
    return hashlib.md5(folded(word).encode(), usedforsecurity=False).digest()[0] % _HELD_OUT_SHARE == 0


@cache
def dictionary(language: str, held_out: bool) -> tuple[str, ...]:
    """Return a language's words of 2 to 16 letters, in the order of its list.

    Raises:
        FileNotFoundError: the list's Debian package is not installed.
    """
    path = _DIRECTORY / LISTS[language]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; apt-get install {PACKAGES}")
    words = path.read_text(encoding="utf-8").split()
    fit = (word for word in words if 2 <= len(word) <= 16 and word.isalpha())
    return tuple(word for word in fit if is_held_out(word) == held_out)


def printed_word(rng: random.Random, held_out: bool = False) -> str:
    """Return a word, a number, a part number or a name, as it would stand on a page."""
    kind = rng.random()
    if kind < 0.74:
        return _in_some_case(rng, rng.choice(dictionary(rng.choice(tuple(LISTS)), held_out)))
    if kind < 0.86:
        return number(rng)
    if kind < 0.92:
        return part_number(rng)
    return _in_some_case(rng, name(rng) if rng.random() < 0.6 else _letters(rng, 2, 10))


def number(rng: random.Random) -> str:
    """Return an exact number: a count, an amount, a year, a date, a percentage."""
    form = rng.randrange(6)
    if form == 0:
        return str(rng.randint(0, 10 ** rng.randint(1, 7)))
    if form == 1:
        return f"{rng.randint(1, 999999):,}"
    if form == 2:
        return f"{rng.uniform(0, 10 ** rng.randint(1, 4)):.{rng.randint(1, 3)}f}"
    if form == 3:
        return str(rng.randint(1850, 2099))
    if form == 4:
        return f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(1990, 2039)}"
    return f"{rng.randint(1, 100)}%"


def part_number(rng: random.Random) -> str:
    """Return letters and digits in two or three groups."""
    groups = [_group(rng) for _ in range(rng.randint(1, 3))]
    return rng.choice("-/.-_")[:1].join(groups)


def name(rng: random.Random) -> str:
    """Return an invented, pronounceable word."""
    syllables = (
        rng.choice(_CONSONANTS) + rng.choice(_VOWELS) + rng.choice(("", "", rng.choice("nrlst")))
        for _ in range(rng.randint(2, 4))
    )
    return "".join(syllables).capitalize()


def _group(rng: random.Random) -> str:
    alphabet = rng.choice((string.digits, string.digits, string.ascii_uppercase))
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 5)))


def _letters(rng: random.Random, shortest: int, longest: int) -> str:
    return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(shortest, longest)))


def _in_some_case(rng: random.Random, word: str) -> str:
    choice = rng.random()
    if choice < 0.72:
        return word
    return word.capitalize() if choice < 0.92 else word.upper()
