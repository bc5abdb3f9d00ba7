"""Search one store with one model: candidates from the store, then exact MaxSim.

Candidates are those of the vectors' bits and those of the words in text layers. What orders them is
their MaxSim score and their texts, as `fusion` says.

Of the candidates of the vectors, the most promising are scored first, and half as many again as
long as one of the best is expected among the next ones. Measured with 20,000 pages that lie as real
ones do, and the ten best of them for 337 queries: half of these take 96 pages, a tenth 1,094 or
more, up to 6,000, and no page is missed that would have been found among these.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise

import numpy as np

from pagevec.errors import InvalidRequest
from pagevec.machine import thread_pool, usable_cores
from pagevec.search.fusion import VECTORS_ALONE, Mix, fuse
from pagevec.search.maxsim import maxsim
from pagevec.stores import hamming
from pagevec.stores.base import EVERYTHING, Filter, Store, TextMatch
from pagevec.stores.fingerprint import FINGERPRINT_TEXT, check_model
from pagevec.stores.words import QueryWords
from pagevec.types import (
    FoundBy,
    Model,
    MultiVector,
    PageKey,
    Query,
    ScoredPage,
    TellsTokens,
)

# Pages that a thread fetches and scores at a time: 16 pages of 700 float32 vectors of 128
# dimensions are 6 MB. Of wider vectors as many bytes.
_BLOCK, _BLOCK_COMPONENTS = 16, 16 * 128
_FIRST = 96
"""Pages to score in any case."""
_EXPECTED = 0.002
"""Pages among the best that may be expected where a search ends."""
_TELLING = 3
"""Pages whose scores tell how those of the next ones fall."""
_SMALLEST_SCATTER = 1e-6
# Candidates for their words beside those for their vectors, which may all be the same pages.
_WORDS_SHORTLIST = 100


class Retriever:
    """Searches a store with the model that embedded its pages.

    Args:
        model: embeds queries.
        store: holds the pages.
    """

    def __init__(self, model: Model, store: Store) -> None:
        self._model = model
        self._store = store
        self._is_checked = self._is_prepared = False

    def search(
        self, query: str, k: int = 10, where: Filter = EVERYTHING, mix: Mix = VECTORS_ALONE
    ) -> list[ScoredPage]:
        """Return the `k` pages that answer `query` best, the best first.

        Raises:
            StoreError: the pages were embedded by another model.
        """
        return self.search_embedded(self.embed(query), k, where, mix)

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
        if self._is_prepared:
            self.check_model()
            return self._embed(query)
        self._is_prepared = True
        threads = ThreadPoolExecutor(2, "pagevec-prepare")
        try:
            # Of a command, most of whose time is the model's, this is the only search.
            first = (self.check_model, self._store.prepare)
            prepared = [threads.submit(copy_context().run, one) for one in first]
            embedded = self._embed(query)
            for one in prepared:
                one.result()
        finally:
            threads.shutdown(wait=False)
        return embedded

    def _embed(self, query: str) -> Query:
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
        return self.search_embedded(Query("", query), k, where, VECTORS_ALONE)

    def search_embedded(
        self, query: Query, k: int = 10, where: Filter = EVERYTHING, mix: Mix = VECTORS_ALONE
    ) -> list[ScoredPage]:
        """Return the `k` pages with the highest relevance, the best first.

        Args:
            query: embedded, with its words.
            k: how many pages.
            where: which pages count.
            mix: whether the words of text layers count, too, and how much.

        Raises:
            InvalidRequest: the query has numbers that are not finite.
        """
        pages = self._score_promising(query.vectors, k, where)
        keys = [page.key for page in pages]
        words = QueryWords(query.text if mix.text else "")
        matches: Mapping[PageKey, TextMatch] = {}
        if words.terms:
            most = max(k, _WORDS_SHORTLIST) if where == EVERYTHING else 0
            matches = self._store.find_words(words.terms, most, keys)
            others = matches.keys() - set(keys)
            pages += self._score_all(query.vectors, sorted(others))
        return _order(pages, matches, words, k, mix)

    def _score_promising(self, query: MultiVector, k: int, where: Filter) -> list[ScoredPage]:
        """Return the scores of the pages that may be among the `k` best by their vectors."""
        if not np.isfinite(query).all():
            raise InvalidRequest(
                "the query's vectors are not finite: the model that embedded it is at fault"
            )
        limit = max(3 * k, self._store.shortlist)  # a third of them is certain
        keys = self._store.candidates(query, limit, where)
        if where != EVERYTHING or len(keys) < hamming.SCAN_FROM:  # in no order
            return self._score_all(query, keys)
        pages, done, wanted = list[ScoredPage](), 0, max(k, _FIRST)
        while done < len(keys) and (not done or _expect_better(pages, k) > _EXPECTED):
            pages += self._score_all(query, keys[done:wanted])
            done, wanted = wanted, wanted + math.ceil(wanted / 2)
        return pages

    def _score_all(self, query: MultiVector, keys: Sequence[PageKey]) -> list[ScoredPage]:
        most = min(_BLOCK, max(1, _BLOCK_COMPONENTS // max(1, query.shape[1])))
        count = -(-len(keys) // most)
        count += -count % usable_cores()  # so that they end at the same time
        bounds = [len(keys) * place // count for place in range(count + 1)] if keys else []
        blocks = [keys[first:end] for first, end in pairwise(bounds)]
        scored = thread_pool("pagevec-rerank").map(partial(self._score, query), blocks)
        return list(chain.from_iterable(scored))

    def _score(self, query: MultiVector, keys: Sequence[PageKey]) -> list[ScoredPage]:
        scored = list[ScoredPage]()
        for page in self._store.fetch_vectors(keys):
            score = float(maxsim(query, page.tiles).max())  # of a long page the best tile counts
            if math.isfinite(score):  # of a store that does not look at what it returns
                scored.append(ScoredPage(page.key, score, page.metadata))
        return scored


def _expect_better(pages: Sequence[ScoredPage], k: int) -> float:
    """Return how many of the next pages, as many as these, are expected to be among the `k` best.

    The next scores are taken to fall from page to page as these do, and to scatter as much about
    the line.
    """
    scores = np.array([page.score for page in pages])
    count = len(scores)
    if count < max(k, _TELLING):
        return float(k)
    places = np.arange(count)
    slope, first = np.polyfit(places, scores, 1)
    scatter = max(float(np.std(scores - first - slope * places)), _SMALLEST_SCATTER)
    line = scores.mean() + min(slope, 0.0) * (np.arange(count, 2 * count) - places.mean())
    least = np.partition(scores, -k)[-k]
    deviations = (least - line) / (scatter * math.sqrt(2))
    return 0.5 * sum(map(math.erfc, deviations.tolist()))


def _order(
    pages: Sequence[ScoredPage],
    matches: Mapping[PageKey, TextMatch],
    words: QueryWords,
    k: int,
    mix: Mix,
) -> list[ScoredPage]:
    """Return the `k` pages with the highest relevance, the best first, and why they were found."""
    scores = {page.key: page.score for page in pages}
    texts = {key: match.score for key, match in matches.items() if key in scores}
    relevance = fuse(scores, texts, mix)
    # Equal ones come in the order of their keys, so that a search gives the same list twice.
    leaders = heapq.nsmallest(k, scores, key=lambda key: (-scores[key], key))
    best = heapq.nsmallest(k, pages, key=lambda page: (-relevance[page.key], -page.score, page.key))

    def explain(page: ScoredPage) -> ScoredPage:
        terms = matches.get(page.key, TextMatch()).terms
        # Without words of the query only its vectors can have brought it here.
        by_vectors: tuple[FoundBy, ...] = ("vectors",) if page.key in leaders or not terms else ()
        return replace(
            page,
            relevance=relevance[page.key],
            found_by=(*by_vectors, "text") if terms else by_vectors,
            found_words=words.spell(terms),
        )

    return [explain(page) for page in best]
