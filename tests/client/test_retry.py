"""Attempts, pauses, and several addresses of one service."""

import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.faulty import Faulty, assert_answers, make_client, numbers, status
from pagevec.client import Client
from pagevec.client.faults import ServiceError, TimedOut, Unreachable, WrongAnswer
from pagevec.client.retry import Endpoints, RetryPolicy
from pagevec.errors import ConfigurationError, PagevecError

NOBODY = "http://127.0.0.1:9"


def test_fails_over(either_client: Any, faulty: Faulty) -> None:
    """Where one address fails, the other is asked at once."""
    started = time.monotonic()
    texts = numbers(20)
    vectors = either_client([NOBODY, faulty.url], max_inputs=3, patience=60.0).embed_texts(texts)
    assert_answers(texts, vectors)
    assert time.monotonic() - started < 5


def test_share_the_work(either_client: Any, faulty: Faulty, other: Faulty) -> None:
    """Addresses are used in rotation."""
    texts = numbers(20)
    assert_answers(texts, either_client([faulty.url, other.url], max_inputs=2).embed_texts(texts))
    assert len(faulty.posts) + len(other.posts) == 10
    assert min(len(faulty.posts), len(other.posts)) >= 4


def test_recovers(faulty: Faulty, other: Faulty) -> None:
    """An address that failed is left alone for a while, then asked again."""
    faulty.answers = [status(500)]
    with make_client(Client, [faulty.url, other.url], set_aside_seconds=1.0) as client:
        for _ in range(4):
            client.embed_query("1")
        assert len(faulty.posts) == 1
        time.sleep(1.0)
        for _ in range(4):
            client.embed_query("1")
        assert len(faulty.posts) > 1


def test_all_fail(either_client: Any, faulty: Faulty, other: Faulty) -> None:
    """Where all addresses keep failing, the call raises their error."""
    faulty.always = other.always = status(500)
    with pytest.raises(Exception, match="500"):
        either_client([faulty.url, other.url], attempts=1).embed_texts(["1"])
    assert (len(faulty.posts), len(other.posts)) == (1, 1)


def test_when_all_are_set_aside() -> None:
    """Where all addresses are set aside, the first to come back is asked."""
    now = 0.0
    endpoints = Endpoints(["http://a", "http://b"], 60, clock=lambda: now)
    assert [endpoints.pick() for _ in range(3)] == ["http://a", "http://b", "http://a"]
    endpoints.set_aside("http://a", 30)
    endpoints.set_aside("http://b", 10)
    assert not endpoints.any_ready()
    assert endpoints.pick() == "http://b"
    now = 31.0
    assert {endpoints.pick(), endpoints.pick()} == {"http://a", "http://b"}


@pytest.mark.parametrize("urls", [[], "ftp://host", "host:8000", "http://", ""])
def test_wrong_addresses(urls: Any) -> None:
    """The constructor refuses an address that is not http(s)."""
    with pytest.raises(ConfigurationError):
        Client(urls)


def answered(code: int, retry_after: float | None = None) -> ServiceError:
    """The error that stands for an answer with this status."""
    response = httpx.Response(code, request=httpx.Request("GET", "http://a"))
    return ServiceError("a sentence", response=response, retry_after=retry_after)


def all_aside(count: int) -> Endpoints:
    """Endpoints of `count` addresses, all set aside."""
    urls = [f"http://{number}" for number in range(count)]
    endpoints = Endpoints(urls, clock=lambda: 0.0)
    for url in urls:
        endpoints.set_aside(url)
    return endpoints


PASSING = [Unreachable("no answer"), TimedOut("late"), answered(500), answered(429), answered(503)]


@pytest.mark.parametrize("error", [answered(400), answered(413), WrongAnswer("something else")])
def test_lasting_errors_are_not_retried(error: PagevecError) -> None:
    """There is no further attempt after an error that will not pass."""
    policy = RetryPolicy()
    assert policy.pause_before_retry(error, 1, 0.0, Endpoints(["http://a"])) is None


@pytest.mark.parametrize("error", PASSING)
def test_another_address_is_asked_at_once(error: PagevecError) -> None:
    """Where an address is ready there is no pause."""
    policy = RetryPolicy()
    assert policy.pause_before_retry(error, 1, 0.0, Endpoints(["http://a", "http://b"])) == 0.0


@given(st.integers(1, 5000), st.floats(0, 60) | st.none())
def test_pauses(attempt: int, retry_after: float | None) -> None:
    """A pause is Retry-After plus a random part, whose bound doubles from 0.5 s up to 30 s."""
    policy = RetryPolicy(patience=1e9)
    pause = policy.pause_before_retry(answered(503, retry_after), attempt, 0.0, all_aside(1))
    assert pause is not None
    least, bound = retry_after or 0.0, min(30.0, 0.5 * 2 ** min(attempt - 1, 6))
    assert least <= pause <= least + bound + 1e-9


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 20))
def test_attempts(attempts: int, addresses: int, attempt: int) -> None:
    """A failing service is asked `attempts` times for each of its addresses."""
    policy, endpoints = RetryPolicy(attempts), all_aside(addresses)
    pause = policy.pause_before_retry(answered(500), attempt, 0.0, endpoints)
    assert (pause is None) == (attempt >= attempts * addresses)


@given(st.floats(0, 400), st.integers(1, 50))
def test_patience(elapsed: float, attempt: int) -> None:
    """A busy service is asked again, however often, while the pause fits within `patience`."""
    policy = RetryPolicy(attempts=1, patience=300.0)
    pause = policy.pause_before_retry(answered(503), attempt, elapsed, all_aside(1))
    if pause is None:
        assert elapsed + 30.0 > 300.0
    else:
        assert elapsed + pause <= 300.0
