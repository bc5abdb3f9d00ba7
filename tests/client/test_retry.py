"""Attempts, pauses, and several addresses of one service."""

import socket
import struct
import threading
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.faulty import (
    Faulty,
    assert_answers,
    dripping,
    make_client,
    numbers,
    see,
    serving,
    status,
)
from pagevec.client import Client
from pagevec.client.faults import (
    ForeignAnswer,
    Misaddressed,
    ServiceError,
    TimedOut,
    Unreachable,
    WrongAnswer,
    wrap_error,
)
from pagevec.client.retry import Budget, Endpoints, RetryPolicy
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


class Clock:
    """A clock that stands still unless a test turns it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(code: int, retry_after: float | None = None) -> ServiceError:
    """The error that stands for an answer with this status."""
    response = httpx.Response(code, request=httpx.Request("GET", "http://a"))
    return ServiceError("a sentence", response=response, retry_after=retry_after)


def caused(cause: httpx.RequestError) -> PagevecError:
    return wrap_error(cause, "http://a")


def all_aside(count: int) -> Endpoints:
    """Endpoints of `count` addresses, all set aside."""
    urls = [f"http://{number}" for number in range(count)]
    endpoints = Endpoints(urls, clock=lambda: 0.0)
    for url in urls:
        endpoints.set_aside(url)
    return endpoints


AWAY = [
    caused(kind("a word"))
    for kind in (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.WriteError)
] + [caused(httpx.RemoteProtocolError("disconnected"))]
BUSY = [answered(code) for code in (429, 502, 503, 504, 522)]
FAILING = [answered(500), answered(408), TimedOut("late"), ForeignAnswer("of another")]
LASTING = [
    answered(400),
    answered(413),
    answered(507),
    WrongAnswer("something else"),
    caused(httpx.LocalProtocolError("a key with a line end")),
]


@pytest.mark.parametrize("error", LASTING, ids=str)
def test_lasting_errors_are_not_retried(error: PagevecError) -> None:
    """There is no further attempt after an error that will not pass, and it is raised as it is."""
    budget = Budget(RetryPolicy(), Endpoints(["http://a", "http://b"]))
    with pytest.raises(PagevecError) as raised:
        budget.pause_after(error)
    assert raised.value is error


@pytest.mark.parametrize("error", [*AWAY, *BUSY, *FAILING, Misaddressed("no such host")], ids=repr)
def test_another_address_is_asked_at_once(error: PagevecError) -> None:
    """Where an address is ready there is no pause."""
    assert Budget(RetryPolicy(), Endpoints(["http://a", "http://b"])).pause_after(error) == 0.0


@given(st.integers(1, 500), st.floats(0, 60) | st.none())
def test_pauses(attempt: int, retry_after: float | None) -> None:
    """A pause is Retry-After plus a random part, whose bound doubles from 0.5 s up to 30 s."""
    budget, error = Budget(RetryPolicy(patience=1e9), all_aside(1)), answered(503, retry_after)
    for _ in range(attempt):
        pause = budget.pause_after(error)
    least, bound = retry_after or 0.0, min(30.0, 0.5 * 2 ** min(attempt - 1, 6))
    assert least <= pause <= least + bound + 1e-9


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(FAILING))
def test_attempts(attempts: int, addresses: int, error: PagevecError) -> None:
    """A failing service is asked `attempts` times for each of its addresses, which it says."""
    budget = Budget(RetryPolicy(attempts), all_aside(addresses))
    for _ in range(attempts * addresses - 1):
        budget.pause_after(error)
    with pytest.raises(type(error), match=rf"\({attempts * addresses} attempts? in 0.0 s"):
        budget.pause_after(error)


@given(st.sampled_from([*AWAY, *BUSY]), st.lists(st.floats(0, 50), min_size=1, max_size=40))
def test_patience(error: PagevecError, durations: list[float]) -> None:
    """A service that is away or busy is asked again until `patience` is spent, and not longer."""
    clock = Clock()
    budget = Budget(RetryPolicy(patience=300.0), all_aside(1), clock)
    for seconds in durations:
        clock.now += seconds
        if clock.now >= 300.0:
            with pytest.raises(PagevecError, match="with a patience of 300 s"):
                budget.pause_after(error)
            return
        clock.now += budget.pause_after(error)
        assert clock.now <= 300.0 + 1e-9
        assert budget.attempt_seconds == pytest.approx(max(1.0, 300.0 - clock.now))


def test_a_long_retry_after_is_not_waited_out() -> None:
    """An hour of a proxy's Retry-After ends the call at once, with both numbers in the error."""
    budget = Budget(RetryPolicy(patience=300.0), all_aside(1))
    with pytest.raises(ServiceError, match=r"3600 s.*patience of 300 s") as raised:
        budget.pause_after(answered(503, 3600.0))
    assert raised.value.retry_after == 3600.0


@pytest.mark.parametrize("error", [*AWAY, *BUSY, *FAILING], ids=repr)
def test_without_patience_a_request_is_sent_once(error: PagevecError) -> None:
    """With a patience of 0 nothing is sent again, and the request has as long as it takes."""
    budget = Budget(RetryPolicy(patience=0), all_aside(1))
    assert budget.attempt_seconds == float("inf")
    with pytest.raises(type(error)):
        budget.pause_after(error)


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_one_attempt_does_not_wait_for_a_service_that_is_away(error: PagevecError) -> None:
    """`attempts=1` sends no request twice to a service that does not take it."""
    with pytest.raises(Unreachable):
        Budget(RetryPolicy(attempts=1), all_aside(1)).pause_after(error)


def test_a_wrong_address_is_not_waited_for() -> None:
    """A name that does not resolve is an error at once, and another address is asked first."""
    with pytest.raises(Misaddressed):
        Budget(RetryPolicy(), all_aside(2)).pause_after(Misaddressed("no such host"))


def test_no_such_host(either_client: Any, faulty: Faulty) -> None:
    """Over real name resolution: at once, naming the host; a second address takes over."""
    started = time.monotonic()
    nowhere = "http://nowhere.invalid:1"
    with pytest.raises(Misaddressed, match=r"nowhere\.invalid"):
        either_client(nowhere, patience=60.0).embed_texts(["7"])
    assert_answers(["7"], either_client([nowhere, faulty.url], patience=60.0).embed_texts(["7"]))
    assert time.monotonic() - started < 20


def test_a_restart_is_no_error(either_client: Any) -> None:
    """Nobody listens, then connections are reset, then the service is there: one call, answered."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()

    def restart() -> None:
        time.sleep(1.0)
        with socket.create_server(address) as dying:
            connection, _ = dying.accept()
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        with serving(address[1]):
            finished.wait(20)

    finished = threading.Event()
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        url = f"http://127.0.0.1:{address[1]}"
        assert_answers(["7"], either_client(url, patience=20.0).embed_texts(["7"]))
    finally:
        finished.set()
        thread.join()


def test_a_silent_service(either_client: Any) -> None:
    """A service that takes the request and never answers costs the patience, not the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url, started = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        with pytest.raises(TimedOut, match="patience of 2 s"):
            either_client(url, timeout=httpx.Timeout(60), patience=2.0).embed_texts(["7"])
        assert time.monotonic() - started < 5


def test_a_dripping_answer(either_client: Any, faulty: Faulty) -> None:
    """An answer that comes byte by byte, each in time, costs the patience, too."""
    faulty.always = dripping(0.2)
    started = time.monotonic()
    with pytest.raises(TimedOut):
        either_client(faulty.url, timeout=httpx.Timeout(60), patience=2.0).embed_texts(["7"])
    assert time.monotonic() - started < 6


def test_polling_is_under_the_budget(either_client: Any, faulty: Faulty) -> None:
    """A result that never comes is polled for as long as the patience lasts."""
    faulty.always = see("/result")
    started = time.monotonic()
    with pytest.raises(TimedOut):
        either_client(faulty.url, timeout=httpx.Timeout(60), patience=1.5).embed_texts(["7"])
    assert time.monotonic() - started < 5


def test_a_password_in_the_address(either_client: Any) -> None:
    """No error repeats the password of an address."""
    url = "http://user:the-word@127.0.0.1:9"
    with pytest.raises(Unreachable) as raised:
        either_client(url, attempts=1).embed_texts(["7"])
    assert "the-word" not in str(raised.value)
    assert "user:***@127.0.0.1" in str(raised.value)
    with pytest.raises(ConfigurationError) as wrong:
        Client("ftp://user:the-word@host")
    assert "the-word" not in str(wrong.value)
