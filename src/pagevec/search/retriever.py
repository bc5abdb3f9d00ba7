"""A query in words -> the pages that answer it: candidates from a store, then exact MaxSim."""

import heapq
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain
from typing import Protocol

from pagevec.search.maxsim import maxsim
from pagevec.stores.base import EVERYTHING, Filter, Store
from pagevec.stores.fingerprint import PROBE_TEXT, check_model
from pagevec.types import Hit, MultiVector, PageKey

# Pages that are scored exactly, of those that the store's sign bits bring up.
CANDIDATES = 500
# Pages that a thread fetches and scores at a time: 64 pages of 700 float32 vectors are 23 MB.
_BLOCK = 64


class EmbedsQueries(Protocol):
    """What turns a query into a multi-vector, such as `pagevec.client.Client`."""

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        """Return one multi-vector for each text, in order."""
        ...


class Retriever:
    """Searches one store with one model: that of its pages."""

    def __init__(self, embedder: EmbedsQueries, store: Store) -> None:
        self._embedder = embedder
        self._store = store
        self._same_model = False

    def search(self, query: str, k: int = 10, where: Filter = EVERYTHING) -> list[Hit]:
        """Return the `k` pages that answer `query` best, the best first.

        Raises:
            StoreError: the pages are of another model.
        """
        return self.search_vectors(self.embed(query), k, where)

    def embed(self, query: str) -> MultiVector:
        """Return the query's multi-vector; the first time, ask whether the model is the pages'.

        Raises:
            StoreError: the pages are of another model.
        """
        if self._same_model or self._store.probe() is None:
            [vectors] = self._embedder.embed_texts([query])
            return vectors
        vectors, made = self._embedder.embed_texts([query, PROBE_TEXT])
        check_model(self._store, made)
        self._same_model = True
        return vectors

    def search_vectors(
        self, query: MultiVector, k: int = 10, where: Filter = EVERYTHING
    ) -> list[Hit]:
        """Return the `k` pages with the highest MaxSim score for `query` (vectors, dim)."""
        keys = self._store.candidates(query, max(k, CANDIDATES), where)
        blocks = [keys[first : first + _BLOCK] for first in range(0, len(keys), _BLOCK)]
        scored = chain.from_iterable(_pool().map(partial(self._scored, query), blocks))
        # Equal scores come in the order of their keys, so that a search gives the same list twice.
        return heapq.nsmallest(k, scored, key=lambda hit: (-hit.score, hit.key))

    def _scored(self, query: MultiVector, keys: Sequence[PageKey]) -> list[Hit]:
        pages = self._store.fetch(keys)
        scores = maxsim(query, [page.vectors for page in pages])
        return [
            Hit(page.key, float(score), page.metadata)
            for page, score in zip(pages, scores, strict=True)
        ]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "pagevec-rerank")
