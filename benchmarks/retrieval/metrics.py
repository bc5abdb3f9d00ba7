"""How good a ranking is where each query has one right page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagevec.types import MultiVector

_ROWS = 4096  # query vectors scored at a time: a page's products stay within tens of MB
_DEPTH = 5


@dataclass(frozen=True)
class Quality:
    """Means over queries.

    Attributes:
        recall: how often the right page comes first; ndcg: nDCG@5.
    """

    queries: int
    recall: float
    ndcg: float

    @classmethod
    def of(cls, ranks: NDArray[np.int64]) -> "Quality":
        """Return the quality of rankings that have the right page at `ranks`, from 0."""
        gains = np.where(ranks < _DEPTH, 1 / np.log2(ranks + 2), 0.0)
        return cls(len(ranks), float(np.mean(ranks == 0)), float(np.mean(gains)))


def scores(queries: Sequence[MultiVector], pages: Sequence[MultiVector]) -> NDArray[np.float32]:
    """Return the exact MaxSim of all queries (q, dim) against all pages, (queries, pages)."""
    table = np.empty((len(queries), len(pages)), np.float32)
    for block in _blocks(queries):
        stacked = np.concatenate([queries[number] for number in block])
        starts = np.cumsum([0, *(len(queries[number]) for number in block[:-1])])
        for column, page in enumerate(pages):
            best = (page @ stacked.T).max(axis=0)
            table[block, column] = np.add.reduceat(best, starts)
    return table


def ranks(table: NDArray[np.float32], right: Sequence[int]) -> NDArray[np.int64]:
    """Return how many pages score as high as the right one or higher, for each query.

    A tie counts against the model: equal scores are no answer.
    """
    own = table[np.arange(len(right)), right]
    return np.asarray((table >= own[:, None]).sum(axis=1) - 1, dtype=np.int64)


def _blocks(queries: Sequence[MultiVector]) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    rows = 0
    for number, query in enumerate(queries):
        if blocks[-1] and rows + len(query) > _ROWS:
            blocks.append([])
            rows = 0
        blocks[-1].append(number)
        rows += len(query)
    return blocks
