"""The batching policy, without a model."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pagevec.engine.requests import Item, Request
from pagevec.engine.scheduler import QUERY_BATCHES_IN_A_ROW, Scheduler, batch_tokens, halve


@dataclass(frozen=True)
class Cost:
    """Stands in for what a backend prepares."""

    tokens: int


def waiting(tokens: int, is_query: bool = False, abandoned: bool = False) -> Item:
    request = Request(1, is_query=is_query)
    if abandoned:
        request.future.cancel()
    return Item(request, 0, Cost(tokens), since=0.0)


LENGTHS = st.lists(st.tuples(st.integers(1, 3000), st.booleans()), max_size=60)


def batches_of(
    entries: list[Item], budget: int, *, padded: bool = True, takers: int = 1
) -> list[list[Item]]:
    scheduler = Scheduler(budget, padded=padded)
    for entry in entries:
        scheduler.add(entry)
    taken = []
    while batch := scheduler.next_batch(takers):
        taken.append(batch)
    assert len(scheduler) == 0
    return taken


@given(LENGTHS, st.integers(64, 4000), st.booleans(), st.integers(1, 4))
def test_nothing_is_lost_or_doubled(
    lengths: list[tuple[int, bool]], budget: int, padded: bool, takers: int
) -> None:
    """Every input is in exactly one batch, whatever the lengths, the budget and the takers."""
    entries = [waiting(tokens, is_query) for tokens, is_query in lengths]
    batches = batches_of(entries, budget, padded=padded, takers=takers)
    taken = [entry for batch in batches for entry in batch]
    assert sorted(map(id, taken)) == sorted(map(id, entries))


@given(LENGTHS, st.integers(64, 4000), st.booleans())
def test_a_batch_keeps_to_the_budget(
    lengths: list[tuple[int, bool]], budget: int, padded: bool
) -> None:
    """A batch costs at most the budget, padding included, unless it is one large input alone."""
    for batch in batches_of([waiting(*one) for one in lengths], budget, padded=padded):
        cost = batch_tokens([entry.tokens for entry in batch], padded)
        assert cost <= budget or len(batch) == 1


@given(LENGTHS, st.integers(64, 4000))
def test_a_batch_has_one_kind(lengths: list[tuple[int, bool]], budget: int) -> None:
    """Texts and pages never share a forward pass."""
    for batch in batches_of([waiting(*one) for one in lengths], budget):
        assert len({entry.is_query for entry in batch}) == 1


def test_takers_share_a_short_line_of_pages() -> None:
    """Two get half of the pages that wait; a long line fills both batches; texts stay together."""
    pages = [waiting(100) for _ in range(8)]
    assert [len(batch) for batch in batches_of(pages, 1000, padded=False)] == [8]
    assert [len(batch) for batch in batches_of(pages, 1000, padded=False, takers=2)][:2] == [4, 2]
    assert len(batches_of(pages * 5, 1000, padded=False, takers=2)[0]) == 10
    texts = [waiting(100, is_query=True) for _ in range(8)]
    assert [len(batch) for batch in batches_of(texts, 1000, padded=False, takers=2)] == [8]


def test_unpadded_batches_are_filled_to_the_budget() -> None:
    """Without padding, a long text does not make the short ones beside it expensive."""
    entries = [waiting(900), *(waiting(10) for _ in range(20))]
    assert [len(batch) for batch in batches_of(entries, 1024, padded=False)] == [13, 8]
    assert len(batches_of(entries, 1024)[0]) == 1


def test_queries_go_before_pages() -> None:
    """A query that comes after many pages is in the next batch."""
    pages = [waiting(700) for _ in range(10)]
    query = waiting(20, is_query=True)
    assert batches_of([*pages, query], 1024)[0] == [query]


def test_pages_do_not_starve() -> None:
    """While queries keep coming, a page batch runs after a bounded number of query batches."""
    scheduler = Scheduler(64)
    page = waiting(700)
    scheduler.add(page)
    for _ in range(100):
        scheduler.add(waiting(60, is_query=True))
    kinds = [scheduler.next_batch()[0].is_query for _ in range(QUERY_BATCHES_IN_A_ROW + 1)]
    assert kinds == [True] * QUERY_BATCHES_IN_A_ROW + [False]


def test_the_first_in_line_always_goes() -> None:
    """An input above the budget is not passed over for ever: it runs alone, in its turn."""
    large, small = waiting(5000), waiting(100)
    assert batches_of([large, small], 1024) == [[large], [small]]


def test_inputs_that_fit_are_taken_from_further_back() -> None:
    """A short batch is filled with later inputs of its size; the ones between keep their turn."""
    one, long, two = waiting(100), waiting(900), waiting(120)
    assert batches_of([one, long, two], 300) == [[one, two], [long]]


def test_abandoned_inputs_are_skipped() -> None:
    """Inputs whose caller left cost no forward pass."""
    left, stays = waiting(100, abandoned=True), waiting(100)
    assert batches_of([left, stays, left], 1024) == [[stays]]


def test_halves_keep_the_order() -> None:
    """Halving loses nothing, keeps the order, and makes both halves smaller."""
    assert halve([1, 2, 3, 4, 5]) == ([1, 2, 3], [4, 5])
    assert halve([1, 2]) == ([1], [2])


def test_the_budget_only_shrinks() -> None:
    """A size that did not fit is remembered; a larger one does not raise the budget again."""
    scheduler = Scheduler(1000)
    scheduler.shrink_to(400)
    scheduler.shrink_to(700)
    assert scheduler.budget == 400
