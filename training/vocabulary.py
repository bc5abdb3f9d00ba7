"""Words to print; now and then one that differs by a letter from one printed just before.

Without such near misses a model distinguishes words by their outline, but numbers and words of one
stem need every letter.
"""

import random
import string
from collections import deque

from benchmarks.retrieval.words import draw_word, is_held_out

_NEAR_MISSES = 0.2  # of the printed words
_REMEMBERED = 100


class Vocabulary:
    """Draws words and remembers the last ones."""

    def __init__(self) -> None:
        self._printed: deque[str] = deque(maxlen=_REMEMBERED)

    def __call__(self, rng: random.Random) -> str:
        """Return a word as it is printed; never one that is held out."""
        if self._printed and rng.random() < _NEAR_MISSES:
            near = near_miss(rng, rng.choice(self._printed))
            if not is_held_out(near):
                return near
        word = draw_word(rng)
        self._printed.append(word)
        return word


def near_miss(rng: random.Random, word: str) -> str:
    """Return the word with a letter or digit changed, left out or doubled, or two exchanged."""
    at = rng.randrange(len(word))
    letter, kind = word[at], rng.random()
    if kind < 0.7 or len(word) < 3:
        return word[:at] + _another(rng, letter) + word[at + 1 :]
    if kind < 0.8:
        return word[:at] + word[at + 1 :]
    if kind < 0.9:
        return word[:at] + letter + word[at:]
    at = rng.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _another(rng: random.Random, letter: str) -> str:
    if letter.isdigit():
        return rng.choice(string.digits)
    if letter.isalpha():
        return rng.choice(string.ascii_uppercase if letter.isupper() else string.ascii_lowercase)
    return letter
