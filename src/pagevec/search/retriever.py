"""Search one store with one model: candidates from the store, then exact MaxSim."""

import heapq
from collections.abc import Sequence
from functools import partial
from itertools import chain

import numpy as np

from pagevec.errors import InvalidRequest
from pagevec.machine import thread_pool
from pagevec.search.maxsim import maxsim
from pagevec.stores.base import EVERYTHING, Filter, Store
from pagevec.stores.fingerprint import FINGERPRINT_TEXT, check_model
from pagevec.types import Model, MultiVector, PageKey, Query, ScoredPage, TellsTokens

# Pages that a thread fetches and scores at a time: 64 pages of 700 float32 vectors of 128
# dimensions are 23 MB. Of wider vectors as many bytes.
_BLOCK, _BLOCK_COMPONENTS = 64, 64 * 128


class Retriever:
    """Searches a store with the model that embedded its pages.

    Args:
        model: embeds queries.
        store: holds the pages.
    """

    def __init__(self, model: Model, store: Store) -> None:
        self._model = model
        self._store = store
        self._is_checked = False

    def search(self, query: str, k: int = 10, where: Filter = EVERYTHING) -> list[ScoredPage]:
        """Return the `k` pages that answer `query` best, the best first.

        Raises:
            StoreError: the pages were embedded by another model.
        """
        return self.search_vectors(self.embed(query).vectors, k, where)

    def check_model(self) -> None:
        """Compare the model with the one that embedded the pages, once.

        Raises:
            OtherModel: they are not the same.
        """
        if not self._is_checked and self._store.fingerprint() is not None:
            [made] = self._model.embed_texts([FINGERPRINT_TEXT])
            check_model(self._store, made)
            self._is_checked = True

    def embed(self, query: str) -> Query:
        """Embed a query, with its tokens where the model tells them.

        Raises:
            StoreError: the pages were embedded by another model; checked once.
        """
        self.check_model()
        if isinstance(self._model, TellsTokens):
            return self._model.embed_query_with_tokens(query)
        return Query(query, self._model.embed_query(query))

    def search_vectors(
        self, query: MultiVector, k: int = 10, where: Filter = EVERYTHING
    ) -> list[ScoredPage]:
        """Return the `k` pages with the highest MaxSim score, the best first.

        Args:
            query: float32 (vectors, dim), rows of unit length.
            k: how many pages.
            where: which pages count.

        Raises:
            InvalidRequest: the query has numbers that are not finite.
        """
        if not np.isfinite(query).all():
            raise InvalidRequest(
                "the query's vectors are not finite: the model that embedded it is at fault"
            )
        keys = self._store.candidates(query, max(k, self._store.shortlist), where)
        most = min(_BLOCK, max(1, _BLOCK_COMPONENTS // max(1, query.shape[1])))
        blocks = [keys[first : first + most] for first in range(0, len(keys), most)]
        scored = chain.from_iterable(
            thread_pool("pagevec-rerank").map(partial(self._score, query), blocks)
        )
        # Equal scores come in the order of their keys, so that a search gives the same list twice.
        return heapq.nsmallest(k, scored, key=lambda hit: (-hit.score, hit.key))

    def _score(self, query: MultiVector, keys: Sequence[PageKey]) -> list[ScoredPage]:
        pages = self._store.fetch(keys)
        tiles = [page.tiles for page in pages]
        tile_scores = maxsim(query, list(chain.from_iterable(tiles)))
        # Of a long page the best tile counts.
        starts = np.cumsum([0, *map(len, tiles[:-1])])
        scores = np.maximum.reduceat(tile_scores, starts) if pages else tile_scores
        return [
            ScoredPage(page.key, float(score), page.metadata)
            for page, score in zip(pages, scores, strict=True)
            if np.isfinite(score)  # of a store that does not look at what it returns
        ]
