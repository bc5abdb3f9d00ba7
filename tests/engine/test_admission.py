"""Which requests are accepted: by count, by seconds, by bytes, and fairly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagevec.engine.admission import Admission, Budgets, Price
from pagevec.engine.requests import Request
from pagevec.errors import QueueFull, TooManyInputs, TooMuchWork


def admit(admission: Admission, caller: str, price: Price, *, is_query: bool = True) -> Request:
    """Register a request and admit it."""
    request = Request(max(1, price.inputs), is_query=is_query, caller=caller)
    admission.register(request)
    admission.admit(request, price)
    return request


@given(st.integers(1, 50), st.integers(1, 100), st.integers(2, 10))
def test_a_flood_keeps_nobody_else_out(size: int, most: int, callers: int) -> None:
    """However many inputs one caller has waiting, another one's first request is accepted."""
    admission = Admission(Budgets(queued_inputs=most))
    price = Price(min(size, most))
    with pytest.raises(QueueFull):
        for _ in range(10 * most):
            admit(admission, "flood", price)
    for number in range(callers):
        admit(admission, f"caller {number}", Price(1))


def test_one_caller_may_fill_most_of_the_queue() -> None:
    """Rather queue than refuse: where nobody else waits, eight ninths are one caller's."""
    admission = Admission(Budgets(queued_inputs=900))
    with pytest.raises(QueueFull):
        while True:
            admit(admission, "only", Price(1))
    assert admission.inputs >= 800


def test_a_request_that_can_never_wait() -> None:
    """It is refused for good, without a time to try again."""
    with pytest.raises(TooManyInputs):
        admit(Admission(Budgets(queued_inputs=4)), "a", Price(5))


@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.booleans()), min_size=1, max_size=30),
    st.booleans(),
)
def test_anothers_backlog_is_no_wait(backlog: list[tuple[float, bool]], is_query: bool) -> None:
    """A request of 0.5 s waits for as much of each other one's, not for all that is in line."""
    admission = Admission(Budgets(request_seconds=1e6))
    for seconds, kind in backlog:
        admit(admission, "heavy", Price(1, forward=seconds), is_query=kind)
    strict = Admission(Budgets(request_seconds=2.5))
    strict._unfinished = admission._unfinished
    admit(strict, "light", Price(1, forward=0.5), is_query=is_query)


def test_what_the_caller_itself_has_waiting_counts() -> None:
    """A second of work after ten of one's own does not fit into ten seconds."""
    admission = Admission(Budgets(request_seconds=10.5))
    admit(admission, "a", Price(5, forward=10))
    with pytest.raises(TooMuchWork, match="after 10 s"):
        admit(admission, "a", Price(5, forward=1))
    with pytest.raises(QueueFull):
        admit(admission, "a", Price(1, forward=1))


def test_what_came_later_counts_for_nobody_before_it() -> None:
    """A request that is priced again is not refused for what its caller asked for since."""
    admission = Admission(Budgets(queued_inputs=10, request_seconds=10))
    first = admit(admission, "a", Price(1, forward=1))
    admit(admission, "a", Price(9, forward=8))
    admission.admit(first, Price(1, forward=2))


def test_every_stage_counts() -> None:
    """Decoding, the model and pooling are each too much where they alone take too long."""
    for stage in ("prepare", "forward", "pooling"):
        admission = Admission(Budgets(request_seconds=10))
        with pytest.raises(TooMuchWork, match="11 s"):
            admit(admission, "a", Price(2, **{stage: 11.0}))


def test_what_is_done_delays_nobody() -> None:
    """Of a request that is half done, half counts."""
    admission = Admission(Budgets(request_seconds=10))
    request = Request(2, is_query=True)
    admission.register(request)
    admission.admit(request, Price(2, forward=8))
    with pytest.raises(TooMuchWork):
        admit(admission, "", Price(2, forward=5))
    request._vectors[0] = None  # type: ignore[assignment]
    admit(admission, "", Price(2, forward=5))


def test_bytes_of_an_answer_and_of_the_work() -> None:
    """An answer that is too large says what makes it smaller; an input, which one it is."""
    admission = Admission(Budgets(answer_bytes=1000, working_bytes=1000))
    admit(admission, "a", Price(2, answer_bytes=1000, working_bytes=1000))
    with pytest.raises(TooMuchWork, match=r"1,001 bytes.*npz"):
        admit(admission, "a", Price(2, answer_bytes=1001))
    with pytest.raises(TooMuchWork, match=r"1,001 bytes.*pool") as error:
        admit(admission, "a", Price(2, working_bytes=1001, neediest=1))
    assert error.value.index == 1
