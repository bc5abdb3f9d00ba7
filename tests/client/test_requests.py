"""What a request holds, and how inputs are split into requests."""

import json
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from pagevec.client.requests import RequestOptions, halve, split_by_bytes, split_by_count


@given(st.integers(0, 300), st.integers(1, 40))
def test_count_loses_nothing(total: int, most: int) -> None:
    """Runs by count hold every position once, in order, within the limit."""
    runs = split_by_count(total, most)
    assert list(chain(*runs)) == list(range(total))
    assert all(1 <= len(run) <= most for run in runs)


@given(st.lists(st.binary(max_size=20)), st.integers(1, 50))
def test_bytes_lose_nothing(inputs: list[bytes], most: int) -> None:
    """Runs by bytes hold every position once, in order, within the limit unless alone."""
    runs = list(split_by_bytes(inputs, most))
    assert list(chain(*runs)) == list(range(len(inputs)))
    for run in runs:
        size = sum(len(inputs[position]) + 1 for position in run)
        assert len(run) == 1 or (run and size <= most)


@given(st.integers(0, 50), st.integers(2, 50))
def test_halves_lose_nothing(start: int, count: int) -> None:
    """Two halves are the whole, and neither is empty."""
    first, second = halve(range(start, start + count))
    assert [*first, *second] == list(range(start, start + count))
    assert first
    assert second


def test_body() -> None:
    """The body is the contract's JSON, without the fields that have the contract's defaults."""
    options = RequestOptions("text", "float16", 2, tokens=True)
    assert json.loads(options.encode_body([b'"a"', '"\u00e4"'.encode()])) == {
        "input_type": "text",
        "inputs": ["a", "ä"],
        "dtype": "float16",
        "pool_factor": 2,
        "tokens": True,
    }
    defaults = RequestOptions("image", "float32").encode_body([])
    assert json.loads(defaults) == {"input_type": "image", "inputs": []}
