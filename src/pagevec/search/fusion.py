"""One order of pages from two: by their vectors, and by the words of their text layers.

Both ways give what `HybridSearch` of mteb gives: relative score fusion (its `rsf`), and reciprocal
rank fusion (Cormack et al. 2009). A page without a text layer, such as a scan, is the exception:
its text is taken to agree with its vectors, so that its relevance is that by its vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import get_args

from pagevec.errors import InvalidRequest
from pagevec.types import Fusion, PageKey

FUSIONS: tuple[Fusion, ...] = get_args(Fusion)

_RRF_K = 60


@dataclass(frozen=True)
class Mix:
    """How the words of text layers count beside the vectors of pages.

    Attributes:
        text: whether they count at all.
        alpha: weight of the vectors, from 0 to 1; the words have the rest.
        fusion: `relative`: scores of both kinds, each on a scale from the least to the highest
            among the candidates; `rrf`: the places in both orders.

    Raises:
        InvalidRequest: `alpha` or `fusion` is not what it may be.
    """

    text: bool = True
    alpha: float = 0.5
    fusion: Fusion = "relative"

    def __post_init__(self) -> None:
        if not isinstance(self.text, bool):
            raise InvalidRequest(f"text={self.text!r}: expected True or False")
        is_number = isinstance(self.alpha, Real) and not isinstance(self.alpha, bool)
        if not is_number or not 0 <= self.alpha <= 1:
            raise InvalidRequest(
                f"alpha={self.alpha!r}: expected the weight of the vectors, a number from 0 to 1"
            )
        if self.fusion not in FUSIONS:
            raise InvalidRequest(
                f"fusion={self.fusion!r}: expected one of {', '.join(map(repr, FUSIONS))}"
            )


DEFAULT_MIX, VECTORS_ALONE = Mix(), Mix(text=False)


def fuse(
    vectors: Mapping[PageKey, float], text: Mapping[PageKey, float], mix: Mix
) -> dict[PageKey, float]:
    """Return the relevance of each page.

    Args:
        vectors: the MaxSim score of every page.
        text: the BM25 score of those that have a text layer; 0 where it has none of the words.
        mix: how both count.

    Returns:
        Relevances, the higher, the better: from 0 to 1 by `relative`, at most 1 / 61 by `rrf`.
    """
    scale = _places if mix.fusion == "rrf" else _shares
    by_vectors = scale(vectors, min(vectors.values(), default=0.0))
    with_words = {key: score for key, score in text.items() if score}
    if not with_words:  # they say nothing about the others
        return by_vectors
    # The least is what a page without the words has, whether one is among the candidates or not.
    by_text = scale(with_words, 0.0)
    return {
        key: mix.alpha * value + (1 - mix.alpha) * by_text.get(key, 0.0) if key in text else value
        for key, value in by_vectors.items()
    }


def _shares(scores: Mapping[PageKey, float], least: float) -> dict[PageKey, float]:
    """Return where each score lies between the least and the highest."""
    spread = max(scores.values(), default=least) - least
    return {key: (one - least) / spread if spread else 0.5 for key, one in scores.items()}


def _places(scores: Mapping[PageKey, float], _: float) -> dict[PageKey, float]:
    """Return a value for the place of each score in their order."""
    ordered = sorted(scores, key=lambda key: (-scores[key], key))
    return {key: 1 / (_RRF_K + place) for place, key in enumerate(ordered, start=1)}
