"""One query for each held-out page: words that stand together on no other page."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.retrieval.pages import HeldOutPage
from benchmarks.retrieval.words import folded

KINDS = ("known", "known", "unseen", "unseen", "number")
_TRIES = 200


@dataclass(frozen=True)
class Query:
    """What is asked, and the one page that answers.

    Attributes:
        text: one to five words, or an exact number.
        kind: `known` words may have been trained on, `unseen` ones never; or `number`.
    """

    text: str
    kind: str
    page: HeldOutPage


def make_queries(pages: Sequence[HeldOutPage]) -> list[Query]:
    """Return a query for each page that has one, the same ones each time."""
    contents = [
        frozenset(folded(word) for words in page.words.values() for word in words) for page in pages
    ]
    queries = (_query(page, contents) for page in pages)
    return [query for query in queries if query is not None]


def _query(page: HeldOutPage, contents: Sequence[frozenset[str]]) -> Query | None:
    rng = random.Random(-page.number)  # noqa: S311 - nothing secret: the same queries each time
    first = rng.choice(KINDS)
    for kind in (first, "known", "unseen"):
        words = [word for word in page.words[kind] if len(word) > 2]
        for _ in range(_TRIES if words else 0):
            count = 1 if kind == "number" else rng.randint(1, min(5, len(words)))
            asked = rng.sample(words, count)
            if _only_one_has({folded(word) for word in asked}, contents):
                return Query(" ".join(asked), kind, page)
    return None


def _only_one_has(words: set[str], contents: Sequence[frozenset[str]]) -> bool:
    return sum(words <= content for content in contents) == 1
