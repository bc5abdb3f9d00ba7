"""The words of one held-out page: common ones, rare ones, words never trained on, numbers."""

import random
from collections.abc import Callable

from benchmarks.retrieval import words

_COMMON = {
    "english": "the of and to in is that for it as was with be by on not he his but at are this",
    "german": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als",
    "french": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se",
    "spanish": "de la que el en y a los del se las por un para con no una su al lo como más",
    "italian": "di e il la che in a per un del è con non una su le si da come dei nel alla più",
}
_SHARES = {"common": 0.3, "known": 0.38, "unseen": 0.2, "number": 0.08, "name": 0.04}


class Vocabulary:
    """Draws a page's words, and remembers which kind each one is.

    Attributes:
        printed: the words of each kind so far, as a query would write them.
    """

    def __init__(self, rng: random.Random, language: str) -> None:
        self._rng = rng
        self._draw: dict[str, Callable[[], str]] = {
            "common": lambda: rng.choice(_COMMON[language].split()),
            "known": lambda: rng.choice(words.dictionary(language, held_out=False)),
            "unseen": lambda: rng.choice(words.dictionary(language, held_out=True)),
            "number": lambda: rng.choice((words.number, words.part_number))(rng),
            "name": lambda: words.name(rng),
        }
        self.printed: dict[str, list[str]] = {kind: [] for kind in self._draw}

    def word(self) -> tuple[str, str]:
        """Return a word as it is printed, and its kind; `keep` what was really printed."""
        [kind] = self._rng.choices(tuple(_SHARES), tuple(_SHARES.values()))
        text = self._draw[kind]()
        return (words.in_some_case(self._rng, text) if kind in ("known", "unseen") else text), kind

    def number(self) -> tuple[str, str]:
        """Return a number, for tables and charts."""
        return self._draw["number"](), "number"

    def keep(self, text: str, kind: str) -> None:
        """Remember that the word stands on the page."""
        self.printed[kind].append(text.lower())
