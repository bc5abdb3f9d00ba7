"""Which inputs form the next batch, and how a batch is halved: pure policy, without threads."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pagevec.engine.requests import Item

T = TypeVar("T")

# Batches of queries that may run in a row while pages wait, so that steady queries starve no page.
QUERY_BATCHES_IN_A_ROW = 8
# How far behind the first in line to look for inputs that fit beside it.
_WINDOW = 512


class Scheduler:
    """Two lines, queries and pages, each first come, first served, cut into batches by cost.

    Attributes:
        budget: tokens of one batch at most.
        padded: whether padding counts as tokens, see `batch_tokens`.
    """

    def __init__(self, budget: int, *, padded: bool = True) -> None:
        self.budget = budget
        self.padded = padded
        self._queries: deque[Item] = deque()
        self._pages: deque[Item] = deque()
        self._query_batches = 0

    def __len__(self) -> int:
        return len(self._queries) + len(self._pages)

    @property
    def pages(self) -> int:
        """Number of pages that wait."""
        return len(self._pages)

    @property
    def tokens(self) -> int:
        """Tokens of all waiting inputs."""
        return sum(item.tokens for line in (self._queries, self._pages) for item in line)

    def add(self, item: "Item") -> None:
        """Put `item` at the end of its line."""
        (self._queries if item.is_query else self._pages).append(item)

    def next_batch(self, takers: int = 1) -> "list[Item]":
        """Take the next batch; empty when nothing waits. Inputs whose caller left are dropped.

        Args:
            takers: threads that take batches; a short line of pages is split evenly among them.
        """
        for line in (self._queries, self._pages):
            _drop_abandoned(line)
        if self._queries and not (self._pages and self._pages_are_due):
            self._query_batches += 1
            return _take(self._queries, self.budget, self.padded)
        self._query_batches = 0
        share = -(-sum(page.tokens for page in self._pages) // takers)
        return _take(self._pages, min(self.budget, share), self.padded)

    @property
    def _pages_are_due(self) -> bool:
        return self._query_batches >= QUERY_BATCHES_IN_A_ROW

    def shrink_to(self, tokens: int) -> None:
        """Form no batch above `tokens`, because a larger one did not fit."""
        self.budget = min(self.budget, tokens)


def batch_tokens(lengths: Sequence[int], padded: bool) -> int:
    """Return the cost of a batch in tokens, including those of its padding if it is `padded`."""
    return max(lengths, default=0) * len(lengths) if padded else sum(lengths)


def halve(batch: list[T]) -> tuple[list[T], list[T]]:
    """Cut `batch` in two, in order; of an odd number the first half is the larger one."""
    middle = (len(batch) + 1) // 2
    return batch[:middle], batch[middle:]


def _drop_abandoned(line: "deque[Item]") -> None:
    if any(item.abandoned for item in line):
        kept = [item for item in line if not item.abandoned]
        line.clear()
        line.extend(kept)


def _take(line: "deque[Item]", budget: int, padded: bool) -> "list[Item]":
    """Take the first in line, always, and those behind it that fit within `budget` beside it."""
    batch: list[Item] = []
    passed_over: list[Item] = []
    longest = total = 0
    while line and len(passed_over) < _WINDOW:
        item = line.popleft()
        with_it = max(longest, item.tokens), total + item.tokens
        cost = with_it[0] * (len(batch) + 1) if padded else with_it[1]
        if batch and cost > budget:
            passed_over.append(item)
        else:
            batch.append(item)
            longest, total = with_it
        if (longest * (len(batch) + 1) if padded else total + 1) > budget:
            break
    line.extendleft(reversed(passed_over))
    return batch
