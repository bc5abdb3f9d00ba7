"""The order by vectors and that by words, brought together as mteb's HybridSearch does."""

from typing import Any

import pytest

from pagevec.errors import InvalidRequest
from pagevec.search.fusion import Mix, fuse
from pagevec.types import PageKey

# Scores of pages by their vectors and by their words, and what mteb 2.26.0 makes of them. It breaks
# ties by the highest id, so its pages were counted downwards.
CASES: list[dict[str, Any]] = [
    {
        "vectors": [17.0, 15.0, 12.0, 11.0, 7.0],
        "text": [0.0, 1.5, 6.0, 0.0, 3.0],
        "alpha": 0.5,
        "relative": [0.5, 0.525, 0.75, 0.2, 0.25],
        "rrf": [0.008196721, 0.0160010241, 0.0161332292, 0.0078125, 0.0157568238],
    },
    {
        "vectors": [4.0, 4.0, 4.0],
        "text": [2.0, 0.0, 1.0],
        "alpha": 0.25,
        "relative": [0.875, 0.125, 0.5],
        "rrf": [0.0163934426, 0.0040322581, 0.0160650282],
    },
]


def keys(values: list[float]) -> dict[PageKey, float]:
    return {PageKey("a", place): value for place, value in enumerate(values, start=1)}


@pytest.mark.parametrize("case", CASES)
def test_fusion_is_that_of_mteb(case: dict[str, Any]) -> None:
    """With a text layer on every page, relevances are mteb's in both ways."""
    for fusion in ("relative", "rrf"):
        mix = Mix(alpha=case["alpha"], fusion=fusion)
        fused = fuse(keys(case["vectors"]), keys(case["text"]), mix)
        assert list(fused.values()) == pytest.approx(case[fusion], abs=1e-9), fusion


@pytest.mark.parametrize("fusion", ["relative", "rrf"])
def test_a_page_without_text_takes_no_penalty(fusion: Any) -> None:
    """Its relevance is that by its vectors, whatever the words do for other pages."""
    vectors = keys([5.0, 4.0, 3.0, 1.0])
    alone = fuse(vectors, {}, Mix(fusion=fusion))
    scan, page, without, last = vectors
    fused = fuse(vectors, {page: 2.0, without: 0.0}, Mix(fusion=fusion))
    assert fused[scan] == alone[scan]
    assert fused[last] == alone[last]
    assert fused[page] > alone[page] > alone[without] > fused[without]


@pytest.mark.parametrize("fusion", ["relative", "rrf"])
def test_words_that_are_nowhere_change_nothing(fusion: Any) -> None:
    """Without text, without a match, and with all the weight on vectors, these alone decide."""
    vectors = keys([5.0, 4.0, 2.0])
    alone = fuse(vectors, {}, Mix(fusion=fusion))
    assert fuse(vectors, dict.fromkeys(vectors, 0.0), Mix(fusion=fusion)) == alone
    text = keys([0.0, 1.0, 7.0])
    assert fuse(vectors, text, Mix(alpha=1, fusion=fusion)) == alone
    assert sorted(alone, key=lambda key: -alone[key]) == list(vectors)


def test_a_single_match_counts_in_full() -> None:
    """The only page with a text layer, which has the words, is before scans that score like it."""
    vectors = keys([5.0, 4.9, 1.0])
    fused = fuse(vectors, {PageKey("a", 2): 0.3}, Mix())
    assert fused[PageKey("a", 2)] == pytest.approx((0.975 + 1) / 2)
    assert fuse({}, {}, Mix()) == {}
    assert fuse(keys([3.0]), {}, Mix()) == {PageKey("a", 1): 0.5}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 2}, "alpha=2: expected the weight of the vectors, a number from 0 to 1"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": True}, "alpha=True"),
        ({"alpha": "0.5"}, "alpha='0.5'"),
        ({"fusion": "dbsf"}, "fusion='dbsf': expected one of 'relative', 'rrf'"),
        ({"text": None}, "text=None: expected True or False"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    """What cannot be is refused in the caller's words."""
    with pytest.raises(InvalidRequest, match=said.replace("'", ".")):
        Mix(**options)
