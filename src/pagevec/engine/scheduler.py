"""Which inputs form the next batch, and how a batch halves. Pure policy: no torch, no threads."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """An input that waits for its forward pass."""

    @property
    def is_query(self) -> bool:
        """Whether it is a text: queries go before pages."""
        ...

    @property
    def tokens(self) -> int:
        """Its sequence length, visual and text tokens: what it costs."""
        ...

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        ...


EntryT = TypeVar("EntryT", bound=Entry)
T = TypeVar("T")

# So many batches of queries may run in a row while pages wait: steady queries starve no page.
QUERY_BATCHES_IN_A_ROW = 8
# How far behind the first in line to look for inputs that fit beside it.
_WINDOW = 512


class Scheduler(Generic[EntryT]):
    """Two lines, queries and pages, each first come, first served, cut into batches by cost.

    Attributes:
        budget: tokens of one batch; padded: whether its padding counts, see `batch_tokens`.
    """

    def __init__(self, budget: int, *, padded: bool = True) -> None:
        self.budget = budget
        self.padded = padded
        self._queries: deque[EntryT] = deque()
        self._pages: deque[EntryT] = deque()
        self._query_batches = 0

    def __len__(self) -> int:
        return len(self._queries) + len(self._pages)

    @property
    def pages(self) -> int:
        """Pages that wait."""
        return len(self._pages)

    @property
    def tokens(self) -> int:
        """Tokens of all waiting inputs."""
        return sum(entry.tokens for line in (self._queries, self._pages) for entry in line)

    def add(self, entry: EntryT) -> None:
        """Put `entry` at the end of its line."""
        (self._queries if entry.is_query else self._pages).append(entry)

    def next_batch(self, takers: int = 1) -> list[EntryT]:
        """Take the next batch; empty when nothing waits. Inputs whose caller left are dropped.

        Where several take batches at the same time, each gets its share of a short line of pages.
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
        """Form no batch above `tokens`: more than that did not fit."""
        self.budget = min(self.budget, tokens)


def batch_tokens(lengths: Sequence[int], padded: bool) -> int:
    """Return the cost of a batch: its tokens, those of its padding included where it has some."""
    return max(lengths, default=0) * len(lengths) if padded else sum(lengths)


def halve(batch: list[T]) -> tuple[list[T], list[T]]:
    """Cut `batch` in two, in order; the first half is the larger one of an odd number."""
    middle = (len(batch) + 1) // 2
    return batch[:middle], batch[middle:]


def _drop_abandoned(line: deque[EntryT]) -> None:
    if any(entry.abandoned for entry in line):
        kept = [entry for entry in line if not entry.abandoned]
        line.clear()
        line.extend(kept)


def _take(line: deque[EntryT], budget: int, padded: bool) -> list[EntryT]:
    """Take the first in line, always, and those behind it that fit within `budget` beside it."""
    batch: list[EntryT] = []
    passed_over: list[EntryT] = []
    longest = total = 0
    while line and len(passed_over) < _WINDOW:
        entry = line.popleft()
        with_it = max(longest, entry.tokens), total + entry.tokens
        cost = with_it[0] * (len(batch) + 1) if padded else with_it[1]
        if batch and cost > budget:
            passed_over.append(entry)
        else:
            batch.append(entry)
            longest, total = with_it
        if (longest * (len(batch) + 1) if padded else total + 1) > budget:
            break
    line.extendleft(reversed(passed_over))
    return batch
