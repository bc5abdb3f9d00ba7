"""A query in words -> the pages that answer it: candidates from a store, then exact MaxSim."""

import heapq
from collections.abc import Iterator, Sequence
from typing import Protocol

from pagevec.search.maxsim import maxsim
from pagevec.stores.base import EVERYTHING, Filter, Store
from pagevec.types import Hit, MultiVector, Page

# Pages that are scored exactly, of those that the store's sign bits bring up.
CANDIDATES = 500
# Pages fetched at a time: 256 pages of 700 float32 vectors are 92 MB.
_BLOCK = 256


class EmbedsQueries(Protocol):
    """What turns a query into a multi-vector, such as `pagevec.client.Client`."""

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        """Return one multi-vector for each text, in order."""
        ...


class Retriever:
    """Searches one store with one model."""

    def __init__(self, embedder: EmbedsQueries, store: Store) -> None:
        self._embedder = embedder
        self._store = store

    def search(self, query: str, k: int = 10, where: Filter = EVERYTHING) -> list[Hit]:
        """Return the `k` pages that answer `query` best, the best first."""
        return self.search_vectors(self.embed(query), k, where)

    def embed(self, query: str) -> MultiVector:
        """Return the query's multi-vector."""
        [vectors] = self._embedder.embed_texts([query])
        return vectors

    def search_vectors(
        self, query: MultiVector, k: int = 10, where: Filter = EVERYTHING
    ) -> list[Hit]:
        """Return the `k` pages with the highest MaxSim score for `query` (vectors, dim)."""
        scored = (
            Hit(page.key, float(score), page.metadata)
            for pages in self._blocks(query, max(k, CANDIDATES), where)
            for page, score in zip(
                pages, maxsim(query, [page.vectors for page in pages]), strict=True
            )
        )
        # Equal scores come in the order of their keys, so that a search gives the same list twice.
        return heapq.nsmallest(k, scored, key=lambda hit: (-hit.score, hit.key))

    def _blocks(self, query: MultiVector, limit: int, where: Filter) -> Iterator[list[Page]]:
        keys = self._store.candidates(query, limit, where)
        for start in range(0, len(keys), _BLOCK):
            yield self._store.fetch(keys[start : start + _BLOCK])
