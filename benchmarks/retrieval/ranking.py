"""Rankings by MaxSim and by BM25, and how good they are where each query has one right page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.words import fold
from pagevec.types import MultiVector

_ROWS = 4096  # query vectors scored at a time: the products with a page take tens of MB
_DEPTH = 5
_WORD = re.compile(r"[^\W_]+(?:[-./_,%][^\W_]+)*%?")


@dataclass(frozen=True)
class Quality:
    """Means over queries.

    Attributes:
        queries: how many there are.
        recall: share of queries whose right page comes first (recall@1).
        ndcg: nDCG@5.
    """

    queries: int
    recall: float
    ndcg: float

    def __str__(self) -> str:
        return f"{self.recall:.2f} / {self.ndcg:.2f} ({self.queries})" if self.queries else ""

    @classmethod
    def of(cls, ranks: NDArray[np.int64]) -> "Quality":
        """Return the quality of rankings with the right page at `ranks` (queries,), from 0."""
        gains = np.where(ranks < _DEPTH, 1 / np.log2(ranks + 2), 0.0)
        return cls(len(ranks), float(np.mean(ranks == 0)), float(np.mean(gains)))


def score_maxsim(
    queries: Sequence[MultiVector], pages: Sequence[MultiVector]
) -> NDArray[np.float32]:
    """Return the exact MaxSim of all queries (q, dim) against all pages, (queries, pages)."""
    table = np.empty((len(queries), len(pages)), np.float32)
    for block in _split_into_blocks(queries):
        stacked = np.concatenate([queries[number] for number in block])
        starts = np.cumsum([0, *(len(queries[number]) for number in block[:-1])])
        for column, page in enumerate(pages):
            best = (page @ stacked.T).max(axis=0)
            table[block, column] = np.add.reduceat(best, starts)
    return table


def rank_right_pages(table: NDArray[np.float32], right: Sequence[int]) -> NDArray[np.int64]:
    """Return for each query how many other pages score at least as high as the right one.

    A tie counts against the model, since equal scores do not decide.

    Args:
        table: scores (queries, pages).
        right: position of the right page of each query.

    Returns:
        int64 (queries,); 0 where the right page comes first.
    """
    own = table[np.arange(len(right)), right]
    return np.asarray((table >= own[:, None]).sum(axis=1) - 1, dtype=np.int64)


def score_bm25(queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
    """Return BM25's scores (queries, texts); words are compared without case and accents."""
    import bm25s

    model = bm25s.BM25()
    model.index([split_words(text) for text in texts], show_progress=False)
    table = np.zeros((len(queries), len(texts)), np.float32)
    for row, query in enumerate(queries):
        known = [word for word in split_words(query) if word in model.vocab_dict]
        if known:
            table[row] = model.get_scores(known)
    return table


def split_words(text: str) -> list[str]:
    """Return the words of a text; numbers and part numbers stay whole."""
    return _WORD.findall(fold(text))


def _split_into_blocks(queries: Sequence[MultiVector]) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    rows = 0
    for number, query in enumerate(queries):
        if blocks[-1] and rows + len(query) > _ROWS:
            blocks.append([])
            rows = 0
        blocks[-1].append(number)
        rows += len(query)
    return blocks
