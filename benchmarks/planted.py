"""Synthetic pages with known answers: each query has ten pages that resemble it, ever less."""

from collections.abc import Iterator, Sequence

import numpy as np

from pagevec.search.maxsim import maxsim
from pagevec.types import MultiVector, Page, PageKey

DIM = 128
PAGE_VECTORS = 700
QUERY_VECTORS = 20
RELEVANT = 10
BATCH = 50
_TOPICS = 256


class PlantedPages:
    """`pages` pages and `queries` queries, the same ones each time.

    Attributes:
        queries: float32 (20, 128) each.
    """

    def __init__(self, pages: int, queries: int) -> None:
        self._random = np.random.default_rng(0)
        self._topics = self._noise(_TOPICS)
        self._pages = pages
        self.queries = [self._vectors(QUERY_VECTORS) for _ in range(queries)]
        places = self._random.choice(pages, (queries, RELEVANT), replace=False).tolist()
        self._planted = {
            place: (self.queries[query], rank)
            for query, row in enumerate(places)
            for rank, place in enumerate(row)
        }
        self._scores = [np.empty(0, np.float32) for _ in self.queries]

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        """Return the queries with these numbers: what a model does for a search in words."""
        return [self.queries[int(text)] for text in texts]

    def batches(self) -> Iterator[list[Page]]:
        """Give all pages once, some at a time; number 1 to `pages` of one document."""
        for first in range(0, self._pages, BATCH):
            numbers = range(first, min(first + BATCH, self._pages))
            pages = [self._page(number) for number in numbers]
            self._scores = [
                np.append(scores, maxsim(query, [page.vectors for page in pages]))
                for query, scores in zip(self.queries, self._scores, strict=True)
            ]
            yield pages

    def best(self, query: int) -> frozenset[int]:
        """Return the numbers of the ten pages with the highest float32 MaxSim, after `batches`."""
        order = np.argsort(-self._scores[query], kind="stable")
        return frozenset((order[:RELEVANT] + 1).tolist())

    def _page(self, place: int) -> Page:
        vectors = self._vectors(PAGE_VECTORS)
        if place in self._planted:
            query, rank = self._planted[place]
            strength = 0.4 + 0.1 * rank
            vectors[:QUERY_VECTORS] = _unit(query + strength * self._noise(QUERY_VECTORS))
        return Page(PageKey("planted", place + 1), vectors)

    def _vectors(self, count: int) -> MultiVector:
        topics = self._random.integers(_TOPICS, size=count)
        return _unit(self._topics[topics] + self._noise(count))

    def _noise(self, count: int) -> MultiVector:
        """Return vectors (count, 128) of about unit length in any direction."""
        return self._random.standard_normal((count, DIM), dtype=np.float32) / np.float32(DIM**0.5)


def _unit(vectors: MultiVector) -> MultiVector:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)
