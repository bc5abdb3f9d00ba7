"""What condensing would lose: measured on pages of a store, with queries made from these pages."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pagevec.search.maxsim import maxsim
from pagevec.stores.base import Store
from pagevec.stores.condense import condense_page, pack_rows
from pagevec.types import Model, MultiVector, Page, PageKey
from pagevec.wire.quantize import sign_bytes

THRESHOLDS = (0.999, 0.998, 0.997, 0.995, 0.99)
"""What is measured, unless a user asks for something else."""

_WORD = re.compile(r"[^\W\d_]{4,16}")
_RARER, _ASKED = 12, 3
_VECTORS = 12  # of a query that is made from vectors
_SEED = 19  # any, but always the same


@dataclass(frozen=True, eq=False)
class Question:
    """A query, and the position of the page of a sample that it was made from."""

    vectors: MultiVector
    page: int


@dataclass(frozen=True)
class Loss:
    """What condensing at a threshold saves and loses, on a sample of pages.

    Attributes:
        threshold: the cosine from which on a vector stands for another.
        kept: share of the vectors that are kept.
        bytes_before: of the vectors in float16 and their signs, of a page, on average.
        bytes_after: these, and the map of the page's tokens.
        found_first: share of queries whose own page comes first, before and after.
        found_in_5: share of queries whose own page is among the first five, before and after.
        same_10: share of the first ten pages that stay among them.
        largest_change: of a page's score, for each vector of the query.
    """

    threshold: float
    kept: float
    bytes_before: float
    bytes_after: float
    found_first: tuple[float, float]
    found_in_5: tuple[float, float]
    same_10: float
    largest_change: float


def sample_pages(store: Store, count: int) -> list[Page]:
    """Return up to `count` pages that are not condensed yet, spread evenly over the store."""
    names = [record.name for record in store.ledger.records()]
    keys = [PageKey(name, number) for name in names for number in sorted(store.has(name))]
    step = max(1, len(keys) // max(1, count))
    pages = (store.fetch([key])[:1] for key in keys[::step])
    whole = (page for found in pages for page in found if page.token_rows is None)
    return [page for page, _ in zip(whole, range(count), strict=False) if len(page.vectors)]


def ask_words(pages: Sequence[Page], model: Model) -> list[Question]:
    """Return a query in words for each page with a text layer: three of its rarer ones."""
    contents = [set(_WORD.findall((page.text or "").lower())) for page in pages]
    pages_with = Counter(chain.from_iterable(contents))
    asked = {}
    for number, content in enumerate(contents):
        rarer = sorted(sorted(content), key=lambda word: pages_with[word])[:_RARER]
        chosen = random.Random(number).sample(rarer, min(_ASKED, len(rarer)))  # noqa: S311
        if chosen:
            asked[number] = " ".join(chosen)
    vectors = model.embed_texts(list(asked.values())) if asked else []
    return [Question(one, page) for page, one in zip(asked, vectors, strict=True)]


def ask_vectors(pages: Sequence[Page]) -> list[Question]:
    """Return a query for each page, made from some of its vectors, each with as much noise."""
    generator = np.random.default_rng(_SEED)
    questions = []
    for number, page in enumerate(pages):
        chosen = generator.choice(len(page.vectors), min(_VECTORS, len(page.vectors)))
        noise = generator.standard_normal((len(chosen), page.vectors.shape[1]))
        mixed = page.vectors[chosen] + noise / np.linalg.norm(noise, axis=1, keepdims=True)
        lengths = np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
        questions.append(Question((mixed / lengths).astype(np.float32), number))
    return questions


def measure_loss(
    pages: Sequence[Page], questions: Sequence[Question], thresholds: Sequence[float] = THRESHOLDS
) -> list[Loss]:
    """Measure what condensing loses and saves.

    Args:
        pages: none of them condensed.
        questions: whose answers are compared, before and after.
        thresholds: each is measured by itself.
    """
    before = _score(questions, pages)
    return [_compare(pages, questions, before, threshold) for threshold in thresholds]


def _compare(
    pages: Sequence[Page],
    questions: Sequence[Question],
    before: NDArray[np.float32],
    threshold: float,
) -> Loss:
    smaller = [condense_page(page, threshold) for page in pages]
    after = _score(questions, smaller)
    own = np.array([question.page for question in questions])
    sizes = np.array([max(1, len(question.vectors)) for question in questions])
    best = min(10, len(pages))
    tops = [np.argsort(-scores, axis=1, kind="stable")[:, :best] for scores in (before, after)]
    same = [len(np.intersect1d(*rows)) / best for rows in zip(*tops, strict=True)]
    return Loss(
        threshold,
        sum(len(page.vectors) for page in smaller) / sum(len(page.vectors) for page in pages),
        float(np.mean([_bytes(page) for page in pages])),
        float(np.mean([_bytes(page) for page in smaller])),
        _found(before, after, own, 1),
        _found(before, after, own, 5),
        float(np.mean(same)),
        float((np.abs(before - after) / sizes[:, None]).max()),
    )


def _score(questions: Sequence[Question], pages: Sequence[Page]) -> NDArray[np.float32]:
    """Return the scores of all pages, (questions, pages): of a long page that of its best tile."""
    tiles = [page.tiles for page in pages]
    starts = np.cumsum([0, *map(len, tiles[:-1])])
    flat = list(chain.from_iterable(tiles))
    scores = [np.maximum.reduceat(maxsim(one.vectors, flat), starts) for one in questions]
    return np.stack(scores)


def _found(
    before: NDArray[np.float32], after: NDArray[np.float32], own: NDArray[np.int_], depth: int
) -> tuple[float, float]:
    rows = np.arange(len(own))
    # Pages that score as high count against it.
    ranks = ((scores >= scores[rows, own][:, None]).sum(axis=1) for scores in (before, after))
    first, second = (float(np.mean(rank <= depth)) for rank in ranks)
    return first, second


def _bytes(page: Page) -> int:
    dim = int(page.vectors.shape[1])
    rows = 0 if page.token_rows is None else len(pack_rows(page.token_rows))
    return len(page.vectors) * (2 * dim + sign_bytes(dim)) + rows
