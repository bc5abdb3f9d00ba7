"""The batching policy, without a model."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pagevec.engine.requests import Item, Request
from pagevec.engine.scheduler import (
    QUERY_BATCHES_IN_A_ROW,
    Scheduler,
    batch_tokens,
    cut,
    halve,
)


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


def of(caller: str, tokens: int, is_query: bool, work: float = 0.0) -> Item:
    return Item(Request(1, is_query=is_query, caller=caller), 0, Cost(tokens), 0.0, work)


def fill(scheduler: Scheduler, entries: list[Item]) -> None:
    for entry in entries:
        scheduler.add(entry)


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=300),
    st.integers(1, 400),
    st.integers(0, 20),
    st.booleans(),
    st.booleans(),
)
def test_a_light_caller_does_not_wait_for_a_heavy_ones_backlog(
    backlog: list[int], tokens: int, batches_before: int, is_query: bool, padded: bool
) -> None:
    """Whatever others have waiting, one input of a caller who has nothing in line goes next."""
    scheduler = Scheduler(1024, padded=padded)
    fill(scheduler, [of("heavy", length, is_query) for length in backlog])
    for _ in range(batches_before):
        scheduler.next_batch()
    light = of("light", tokens, is_query)
    scheduler.add(light)
    fill(scheduler, [of("heavy", length, is_query) for length in backlog])
    assert light in scheduler.next_batch() + scheduler.next_batch()


@given(st.lists(st.integers(1, 1000), min_size=50, max_size=50), st.integers(1, 1000))
def test_callers_with_much_to_do_share_by_cost(many: list[int], same: int) -> None:
    """While two callers wait, neither gets more than a batch ahead of the other, in work."""
    scheduler = Scheduler(1024, padded=False)
    fill(scheduler, [of("one", length, True) for length in many])
    fill(scheduler, [of("two", same, True) for _ in range(50)])
    got, left = {"one": 0.0, "two": 0.0}, {"one": 50, "two": 50}
    while True:
        for item in scheduler.next_batch():
            got[item.request.caller] += item.work
            left[item.request.caller] -= 1
        if not all(left.values()):
            break
        assert abs(got["one"] - got["two"]) <= 2 * 1024


def test_who_asked_for_nothing_has_saved_up_nothing() -> None:
    """A caller who comes late gets half from then on, not what it left to others before."""
    scheduler = Scheduler(100, padded=False)
    fill(scheduler, [of("early", 100, True) for _ in range(100)])
    for _ in range(50):
        scheduler.next_batch()
    fill(scheduler, [of("late", 100, True) for _ in range(100)])
    turns = [item.request.caller for _ in range(20) for item in scheduler.next_batch()]
    assert turns.count("early") == turns.count("late") == 10


def test_a_lone_callers_inputs_keep_their_order() -> None:
    """Fairness changes nothing for one caller: first come, first served."""
    scheduler = Scheduler(100, padded=False)
    entries = [of("only", 40, False) for _ in range(30)]
    fill(scheduler, entries)
    taken = []
    while batch := scheduler.next_batch():
        taken += batch
    assert taken == entries


def test_queries_that_take_as_long_as_pages_alternate_with_them() -> None:
    """Pages wait for no more work of queries than a batch of pages takes."""
    scheduler = Scheduler(100, padded=False)
    scheduler.pass_work = 250
    fill(scheduler, [of("a", 100, True) for _ in range(20)])
    fill(scheduler, [of("b", 100, False) for _ in range(20)])
    kinds = "".join("q" if scheduler.next_batch()[0].is_query else "p" for _ in range(12))
    assert kinds == "qqqpqqqpqqqp"


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.booleans())
def test_a_batch_of_queries_takes_no_longer_than_one_of_pages(
    lengths: list[int], padded: bool
) -> None:
    """Its work is within that of a batch of pages, padding included, unless it is one text."""
    scheduler = Scheduler(10_000, padded=padded)
    scheduler.pass_work = 4000
    fill(scheduler, [of("a", length, True, length * (1 + length / 1000)) for length in lengths])
    while batch := scheduler.next_batch():
        work = [item.work for item in batch]
        effort = max(work) * len(work) if padded else sum(work)
        assert effort <= 4000 or len(batch) == 1


def test_giant_texts_leave_a_thread_to_others() -> None:
    """Of two threads, one at most runs texts that take longer than a batch of pages."""
    scheduler = Scheduler(100)
    scheduler.pass_work = 200
    giants = [of("giant", 1000, True) for _ in range(2)]
    small = of("giant", 10, True)
    fill(scheduler, [*giants, small])
    assert scheduler.next_batch(takers=2) == [giants[0]]
    assert scheduler.next_batch(takers=2) == [small]
    assert scheduler.next_batch(takers=2) == []
    scheduler.pass_work = 2000  # measured again: none of them would be a giant now
    assert scheduler.end([giants[0]])
    scheduler.pass_work = 200
    assert scheduler.next_batch(takers=2) == [giants[1]]


def test_queries_beside_pages() -> None:
    """What runs beside pages is queries alone, without those that would hold it up for long."""
    scheduler = Scheduler(100)
    scheduler.pass_work = 200
    giant, small, page = of("a", 1000, True), of("a", 10, True), of("b", 50, False)
    fill(scheduler, [giant, small, page])
    assert scheduler.next_queries() == [small]
    assert scheduler.next_queries() == []
    assert scheduler.next_batch() == [giant]
    assert scheduler.next_batch() == [page]


def test_giant_texts_run_where_there_is_one_thread() -> None:
    """They are not kept waiting for a thread that does not exist."""
    scheduler = Scheduler(100)
    scheduler.pass_work = 200
    giants = [of("giant", 1000, True) for _ in range(2)]
    fill(scheduler, giants)
    assert [scheduler.next_batch() for _ in giants] == [[giant] for giant in giants]


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(64, 4000), st.booleans())
def test_a_requests_cost_is_that_of_the_batches_it_is_cut_into(
    lengths: list[int], budget: int, padded: bool
) -> None:
    """What admission foresees is what happens where nothing else waits."""
    taken = batches_of([waiting(length, True) for length in lengths], budget, padded=padded)
    assert cut(lengths, budget, padded) == [[item.tokens for item in one] for one in taken]
