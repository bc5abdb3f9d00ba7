"""What is printed on the pages: words of five languages, and strings that no dictionary has.

A twentieth of the dictionaries' words is held out: the training never prints one of them.
"""

import hashlib
import random
import string
import unicodedata
from collections.abc import Sequence
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
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxz"


class WordListMissing(Exception):
    """A dictionary's Debian package is not installed; the message names it."""


def folded(word: str) -> str:
    """Return the word without case and accents, as the bundled model's tokenizer reads it."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def is_held_out(word: str) -> bool:
    """Whether the training leaves this word out (in every case and with any accents)."""
    digest = hashlib.md5(folded(word).encode(), usedforsecurity=False).digest()
    return digest[0] % _HELD_OUT_SHARE == 0


@cache
def dictionary(language: str, held_out: bool) -> tuple[str, ...]:
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


def printed_word(rng: random.Random) -> str:
    """Return a word (none held out), a number, a part number or a name, as print has it."""
    kind = rng.random()
    if kind < 0.66:
        language = rng.choice(tuple(LISTS))
        return in_some_case(rng, rng.choice(dictionary(language, held_out=False)))
    if kind < 0.8:
        return number(rng)
    if kind < 0.9:
        return part_number(rng)
    return in_some_case(rng, name(rng) if rng.random() < 0.6 else _letters(rng, 2, 10))


def in_some_case(rng: random.Random, word: str) -> str:
    """Return the word as it stands, with a capital, or in capitals."""
    choice = rng.random()
    if choice < 0.72:
        return word
    return word.capitalize() if choice < 0.92 else word.upper()


def number(rng: random.Random) -> str:
    """Return an exact number: a count, an amount, a year, a date, a percentage."""
    forms = (
        str(rng.randint(0, 10 ** rng.randint(1, 7))),
        f"{rng.randint(1, 999999):,}",
        f"{rng.uniform(0, 10 ** rng.randint(1, 4)):.{rng.randint(1, 3)}f}",
        str(rng.randint(1850, 2099)),
        f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(1990, 2039)}",
        f"{rng.randint(1, 100)}%",
    )
    return rng.choice(forms)


def part_number(rng: random.Random) -> str:
    """Return letters and digits in one to three groups."""
    alphabets: Sequence[str] = (string.digits, string.digits, string.ascii_uppercase)
    groups = [_letters(rng, 1, 5, alphabet=rng.choice(alphabets)) for _ in range(rng.randint(1, 3))]
    return rng.choice("-/.-_").join(groups)


def name(rng: random.Random) -> str:
    """Return an invented, pronounceable word."""
    syllables = (
        rng.choice(_CONSONANTS) + rng.choice(_VOWELS) + rng.choice(("", "", rng.choice("nrlst")))
        for _ in range(rng.randint(2, 4))
    )
    return "".join(syllables).capitalize()


def _letters(
    rng: random.Random, shortest: int, longest: int, alphabet: str = string.ascii_lowercase
) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(shortest, longest)))
