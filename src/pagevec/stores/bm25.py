"""Which words of a query tell pages apart, and how well a page's text answers them: BM25.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with the
parameters of SQLite's FTS5, so that all stores give one page one score.
"""

import math
from collections.abc import Mapping
from itertools import accumulate

MOST_FOUND = 50_000
"""Pages that the words of a query may be found on, all words together: that many are scored in a
tenth of a second. The rarer words come first; a word on more pages than that tells nothing."""

_K1, _B, _LEAST = 1.2, 0.75, 1e-6


def telling(counts: Mapping[str, int], pages: int) -> list[str]:
    """Return the terms of a query that are worth looking up, the rarest first.

    Words on more than half of the pages are left out: to BM25 they are worth nothing, but on a
    scale from the least score to the highest, that nothing would count as much as any other word.
    A word on a single page always tells.

    Args:
        counts: on how many pages each term is; of terms on more than `MOST_FOUND` at least one more
            than that.
        pages: how many pages have words.
    """
    found = sorted(
        (count, term) for term, count in counts.items() if 0 < 2 * count <= max(pages, 2)
    )
    in_all = accumulate(count for count, _ in found)
    return [term for (_, term), total in zip(found, in_all, strict=True) if total <= MOST_FOUND]


def score(count: int, length: int, mean_length: float, found: int, pages: int) -> float:
    """Return what a term adds to the score of a page.

    Args:
        count: how often the page has it.
        length: terms of the page.
        mean_length: of all pages with words.
        found: how many pages have the term.
        pages: how many pages have words.
    """
    rarity = max(math.log((pages - found + 0.5) / (found + 0.5)), _LEAST)
    return rarity * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length / mean_length))
