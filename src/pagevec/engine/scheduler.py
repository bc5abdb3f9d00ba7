"""Fair lines of callers, and the batches that are cut from them: pure policy, without threads."""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pagevec.engine.requests import Item

T = TypeVar("T")

# Batches of queries that may run in a row while pages wait, so that steady queries starve no page.
# Fewer, where these take as long as a batch of pages together.
QUERY_BATCHES_IN_A_ROW = 8
# How far behind the first in line to look for inputs that fit beside it.
_WINDOW = 512


@dataclass(frozen=True, eq=False)
class Ticket(Generic[T]):
    """A place in a `FairLine`: who holds it, what is there, and what it costs."""

    caller: str
    entry: T
    cost: float
    number: int


@dataclass
class _Lane(Generic[T]):
    """What one caller has in line, and when, on the line's clock, the first of it starts."""

    start: float
    tickets: deque[Ticket[T]] = field(default_factory=deque)

    def timed(self) -> Iterator[tuple[float, int, Ticket[T]]]:
        start = self.start
        for ticket in self.tickets:
            yield start, ticket.number, ticket
            start += ticket.cost


class FairLine(Generic[T]):
    """A line in which callers take turns by cost: start-time fair queuing (Goyal and others, 1996).

    Each caller keeps its own order. An entry starts when the one before it of the same caller
    would end, if every caller had a server of its own; the earliest start is next. So a caller who
    asks for little never waits for the backlog of one who asks for much, and a caller who asked for
    nothing has saved up nothing.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane[T]] = {}
        self._clock = 0.0
        self._numbers = 0

    def __len__(self) -> int:
        return sum(len(lane.tickets) for lane in self._lanes.values())

    def __iter__(self) -> Iterator[T]:
        return (ticket.entry for lane in self._lanes.values() for ticket in lane.tickets)

    def count(self, caller: str) -> int:
        """Return how many entries `caller` has in line."""
        lane = self._lanes.get(caller)
        return len(lane.tickets) if lane else 0

    def add(self, caller: str, cost: float, entry: T) -> None:
        """Put `entry` behind what `caller` has in line already."""
        lane = self._lanes.setdefault(caller, _Lane(self._clock))
        if not lane.tickets:
            lane.start = max(lane.start, self._clock)
        self._numbers += 1
        lane.tickets.append(Ticket(caller, entry, cost, self._numbers))

    def in_turn(self) -> Iterator[Ticket[T]]:
        """Yield all tickets, the next one first. Take none of them before the iteration ends."""
        lanes = (lane.timed() for lane in self._lanes.values())
        return (ticket for _, _, ticket in heapq.merge(*lanes))

    def heads(self) -> list[Ticket[T]]:
        """Return the first ticket of each caller, the next one first."""
        firsts = (next(lane.timed()) for lane in self._lanes.values() if lane.tickets)
        return [ticket for _, _, ticket in sorted(firsts)]

    def take(self, tickets: Sequence[Ticket[T]]) -> None:
        """Remove `tickets` from the line, of which the first is the earliest in turn."""
        if tickets:
            self._clock = max(self._clock, self._lanes[tickets[0].caller].start)
        for ticket in tickets:
            lane = self._lanes[ticket.caller]
            lane.tickets.remove(ticket)
            lane.start += ticket.cost
        self._forget_idle()

    def drop(self, is_gone: Callable[[T], bool]) -> None:
        """Remove the entries that `is_gone` says are no longer wanted; they cost nothing."""
        for lane in self._lanes.values():
            if any(is_gone(ticket.entry) for ticket in lane.tickets):
                lane.tickets = deque(one for one in lane.tickets if not is_gone(one.entry))
        self._forget_idle()

    def _forget_idle(self) -> None:
        """Forget callers who have nothing in line and no start ahead of the clock."""
        if not len(self):  # nobody waits: what was taken before is nobody's loss
            self._lanes.clear()
        idle = [
            caller
            for caller, lane in self._lanes.items()
            if not lane.tickets and lane.start <= self._clock
        ]
        for caller in idle:
            del self._lanes[caller]


class Scheduler:
    """Two fair lines, queries and pages, cut into batches by cost.

    Attributes:
        budget: tokens of one batch at most.
        padded: whether padding counts as tokens, see `batch_tokens`.
        pass_work: work of queries that takes as long as a full batch of pages: a batch of queries
            has no more, unless it is one text alone.
    """

    def __init__(self, budget: int, *, padded: bool = True) -> None:
        self.budget = budget
        self.padded = padded
        self.pass_work = float("inf")
        self._queries: FairLine[Item] = FairLine()
        self._pages: FairLine[Item] = FairLine()
        self._query_batches = 0
        self._query_work = 0.0
        self._giants: set[Item] = set()  # those that run

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

    def pages_of(self, caller: str) -> int:
        """Return how many pages of `caller` wait."""
        return self._pages.count(caller)

    def add(self, item: "Item") -> None:
        """Put `item` at the end of what its caller has in line."""
        line = self._queries if item.is_query else self._pages
        line.add(item.request.caller, item.work, item)

    def next_batch(self, takers: int = 1) -> "list[Item]":
        """Take the next batch; empty when none may begin. Inputs whose caller left are dropped.

        Of several takers, one is kept free of texts that take longer than a batch of pages.

        Args:
            takers: threads that take batches; a short line of pages is split evenly among them.
        """
        for line in (self._queries, self._pages):
            line.drop(lambda item: item.abandoned)
        if self._queries and not (self._pages and self._pages_are_due):
            keep_free = takers > 1 and len(self._giants) >= takers - 1
            if batch := self._take_queries(keep_free):
                return batch
        self._query_batches, self._query_work = 0, 0.0
        share = -(-sum(page.tokens for page in self._pages) // takers)
        return _take(self._pages, self._pages.in_turn(), min(self.budget, share), self.padded)

    def next_queries(self) -> "list[Item]":
        """Take a batch of queries that takes no longer than one of pages; empty if there is none.

        It is beside those of `next_batch`: whatever is due there is due still.
        """
        self._queries.drop(lambda item: item.abandoned)
        tickets = (one for one in self._queries.in_turn() if not self._is_giant(one.entry))
        return _take(self._queries, tickets, self.budget, self.padded, self.pass_work)

    def end(self, batch: "Sequence[Item]") -> bool:
        """Note that `batch` has run, whatever became of it.

        Returns:
            Whether others may begin that could not before.
        """
        ended = self._giants.intersection(batch)
        self._giants -= ended
        return bool(ended)

    @property
    def _pages_are_due(self) -> bool:
        return self._query_batches >= QUERY_BATCHES_IN_A_ROW or self._query_work >= self.pass_work

    def shrink_to(self, tokens: int) -> None:
        """Form no batch above `tokens`, because a larger one did not fit."""
        self.budget = min(self.budget, tokens)

    def _take_queries(self, keep_free: bool) -> "list[Item]":
        tickets = self._queries.in_turn()
        if keep_free:
            tickets = (one for one in tickets if not self._is_giant(one.entry))
        batch = _take(self._queries, tickets, self.budget, self.padded, self.pass_work)
        if batch:
            self._query_batches += 1
            self._query_work += sum(item.work for item in batch)
            self._giants.update(filter(self._is_giant, batch))
        return batch

    def _is_giant(self, item: "Item") -> bool:
        return item.is_query and item.work > self.pass_work


def batch_tokens(lengths: Sequence[int], padded: bool) -> int:
    """Return the cost of a batch in tokens, including those of its padding if it is `padded`."""
    return max(lengths, default=0) * len(lengths) if padded else sum(lengths)


def halve(batch: list[T]) -> tuple[list[T], list[T]]:
    """Cut `batch` in two, in order; of an odd number the first half is the larger one."""
    middle = (len(batch) + 1) // 2
    return batch[:middle], batch[middle:]


def cut(lengths: Sequence[int], budget: int, padded: bool) -> list[list[int]]:
    """Return the batches, as lengths, that inputs of these lengths form when nothing else waits."""
    left, batches = list(lengths), []
    while left:
        chosen = _choose(((length, 0.0) for length in left), budget, padded)
        batches.append([left[place] for place in chosen])
        kept = set(range(len(left))).difference(chosen)
        left = [left[place] for place in sorted(kept)]
    return batches


def _take(
    line: "FairLine[Item]",
    tickets: "Iterable[Ticket[Item]]",
    budget: int,
    padded: bool,
    work: float = float("inf"),
) -> "list[Item]":
    seen: list[Ticket[Item]] = []

    def sizes() -> Iterator[tuple[int, float]]:
        for ticket in tickets:
            seen.append(ticket)
            yield ticket.entry.tokens, ticket.entry.work

    chosen = [seen[place] for place in _choose(sizes(), budget, padded, work)]
    line.take(chosen)
    return [ticket.entry for ticket in chosen]


def _choose(
    sizes: Iterable[tuple[int, float]], budget: int, padded: bool, most_work: float = float("inf")
) -> list[int]:
    """Choose the first in line, always, and those behind it that fit beside it.

    Args:
        sizes: tokens and work of each in line.
        budget: tokens of the batch at most.
        padded: whether padding counts, in tokens and in work.
        most_work: work of the batch at most.

    Returns:
        Their places in line.
    """
    chosen: list[int] = []
    longest = total = 0
    hardest = work = 0.0
    for place, (tokens, one_work) in enumerate(sizes):
        count = len(chosen)
        with_it = max(longest, tokens), total + tokens
        work_with_it = max(hardest, one_work), work + one_work
        cost = with_it[0] * (count + 1) if padded else with_it[1]
        effort = work_with_it[0] * (count + 1) if padded else work_with_it[1]
        if not chosen or (cost <= budget and effort <= most_work):
            chosen.append(place)
            longest, total = with_it
            hardest, work = work_with_it
            count += 1
        if (longest * (count + 1) if padded else total + 1) > budget:
            break
        if place + 1 - count >= _WINDOW:
            break
    return chosen
