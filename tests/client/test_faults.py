"""What both clients do when a service fails, over real connections."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from client.faulty import (
    Faulty,
    assert_answers,
    at_most,
    broken,
    error,
    numbers,
    right,
    see,
    slow,
    status,
)
from pagevec import errors
from pagevec.client import faults
from pagevec.client.requests import json_reader, read_info


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_passing_faults_are_tried_again(either_client: Any, faulty: Faulty, code: int) -> None:
    """Errors that may pass are retried until the service answers."""
    faulty.answers = [status(code)]
    assert_answers(["7"], either_client(faulty.url).embed_texts(["7"]))
    assert len(faulty.posts) == 2


@pytest.mark.parametrize("code", [400, 401, 404, 422])
def test_lasting_faults_are_not(either_client: Any, faulty: Faulty, code: int) -> None:
    """A refusal is raised at once, as httpx's kind of error with its answer."""
    faulty.answers = [status(code)]
    with pytest.raises(httpx.HTTPStatusError) as raised:
        either_client(faulty.url).embed_texts(["7"])
    assert raised.value.response.status_code == code
    assert len(faulty.posts) == 1


def test_attempts_end(either_client: Any, faulty: Faulty) -> None:
    """A fault that stays is raised after `attempts` tries, as the class that the service named."""
    faulty.always = error(500, "internal_error")
    with pytest.raises(errors.InternalError, match="a sentence") as raised:
        either_client(faulty.url, attempts=2).embed_texts(["7"])
    assert isinstance(raised.value, httpx.HTTPStatusError)
    assert len(faulty.posts) == 2


def test_the_general_error_of_a_code(either_client: Any, faulty: Faulty) -> None:
    """Where special cases of an error have its code, an answer is the error, not one of them."""
    faulty.always = error(400, "store_error")
    with pytest.raises(errors.StoreError) as raised:
        either_client(faulty.url).embed_texts(["7"])
    assert not isinstance(raised.value, errors.OtherModel | errors.NoStore)


def test_retry_after_seconds(either_client: Any, faulty: Faulty) -> None:
    """The client waits at least as long as Retry-After says."""
    faulty.answers = [status(503, retry_after="1")]
    started = time.monotonic()
    either_client(faulty.url).embed_texts(["7"])
    assert 1.0 <= time.monotonic() - started < 4.0


def test_retry_after_date() -> None:
    """Retry-After may be a date; anything unreadable counts as absent."""

    def retry_after(value: str) -> float | None:
        request = httpx.Request("GET", "http://a")
        return faults.read_error(
            httpx.Response(503, headers={"retry-after": value}, request=request)
        ).retry_after

    soon = datetime.now(UTC) + timedelta(seconds=20)
    assert retry_after(format_datetime(soon, usegmt=True)) == pytest.approx(20, abs=2)
    assert retry_after("soon") is None
    assert retry_after("") is None


def test_patience_ends(either_client: Any, faulty: Faulty) -> None:
    """A client does not wait where Retry-After is longer than its `patience`."""
    faulty.always = status(503, retry_after="30")
    with pytest.raises(faults.ServiceError) as raised:
        either_client(faulty.url, patience=5.0).embed_texts(["7"])
    assert raised.value.retry_after == 30
    assert len(faulty.posts) == 1


def test_broken_connection(either_client: Any, faulty: Faulty) -> None:
    """A request whose answer breaks off is sent again."""
    faulty.answers = [broken]
    assert_answers(["7"], either_client(faulty.url).embed_texts(["7"]))


def test_no_answer(either_client: Any) -> None:
    """No listener: the error is ours and httpx's, and its cause is httpx's own."""
    with pytest.raises(faults.Unreachable) as raised:
        either_client("http://127.0.0.1:9", attempts=2).embed_texts(["7"])
    assert isinstance(raised.value, httpx.TransportError)
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


def test_timeout(either_client: Any, faulty: Faulty) -> None:
    """A request without an answer in time is sent again; if none comes, that is a timeout."""
    faulty.answers = [slow(0.6)]
    client = either_client(faulty.url, timeout=httpx.Timeout(0.3), attempts=2)
    assert_answers(["7"], client.embed_texts(["7"]))
    faulty.always = slow(0.6)
    with pytest.raises(httpx.TimeoutException) as raised:
        client.embed_texts(["7"])
    assert isinstance(raised.value, faults.TimedOut)


@pytest.mark.parametrize("answer", [lambda inputs: right(inputs[:-1]), status(200)])
def test_wrong_answer(either_client: Any, faulty: Faulty, answer: Any) -> None:
    """A 200 with too few vectors, or of another form, is an error: never a partial result."""
    faulty.answers = [answer]
    with pytest.raises(faults.WrongAnswer) as raised:
        either_client(faulty.url).embed_texts(numbers(3))
    assert isinstance(raised.value, httpx.DecodingError)


@pytest.mark.parametrize("read", [read_info, json_reader(lambda answer: int(answer["pages"]))])
@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"[]", b"{", b'{"pages":Infinity,"limits":Infinity}', b'"\xff"'],
    ids=["nested", "list", "cut off", "infinite", "not UTF-8"],
)
def test_any_wrong_json(read: Callable[[httpx.Response], Any], content: bytes) -> None:
    """Whatever reading an answer in JSON fails with, the caller gets a `WrongAnswer`."""
    request = httpx.Request("GET", "http://127.0.0.1:9/info")
    with pytest.raises(faults.WrongAnswer, match="unexpected answer"):
        read(httpx.Response(200, content=content, request=request))


def test_a_refusal_in_nested_json(either_client: Any, faulty: Faulty) -> None:
    """A refusal whose JSON is too deep to read is still reported by its status."""
    faulty.always = lambda inputs: Response(b"[" * 100_000, 400)
    with pytest.raises(faults.ServiceError, match="answered 400"):
        either_client(faulty.url).embed_texts(["7"])


def test_one_fault_fails_the_call(either_client: Any, faulty: Faulty) -> None:
    """Where one of many requests is refused, the call raises and returns nothing."""
    faulty.always = lambda inputs: right(inputs) if "5" not in inputs else status(400)(inputs)
    with pytest.raises(httpx.HTTPStatusError):
        either_client(faulty.url, max_inputs=2).embed_texts(numbers(12))


@pytest.mark.parametrize("most", [1, 3, 8])
def test_halves_on_413(either_client: Any, faulty: Faulty, most: int) -> None:
    """A request that is too large is sent in halves, down to what fits, and order is kept."""
    faulty.always = at_most(most)
    texts = numbers(21)
    assert_answers(texts, either_client(faulty.url, max_inputs=9).embed_texts(texts))


def test_blames_the_callers_input(either_client: Any, faulty: Faulty) -> None:
    """An error names the input's place in the caller's list, through splitting and halving."""

    def answer(inputs: list[str]) -> Any:
        if len(inputs) > 2:
            return status(413)(inputs)
        at = inputs.index("17") if "17" in inputs else None
        return right(inputs) if at is None else error(400, "invalid_text", at)(inputs)

    faulty.always = answer
    with pytest.raises(errors.InvalidText) as raised:
        either_client(faulty.url, max_inputs=7).embed_texts(numbers(30))
    assert raised.value.index == 17


def test_one_input_too_large(either_client: Any, faulty: Faulty) -> None:
    """The error names an input that is too large even on its own."""
    faulty.always = lambda inputs: status(413)(inputs) if "3" in inputs else right(inputs)
    with pytest.raises(faults.ServiceError) as raised:
        either_client(faulty.url).embed_texts(numbers(6))
    assert raised.value.index == 3


def test_polls_at_303(either_client: Any, faulty: Faulty) -> None:
    """Modal's 303 is followed with GET within its origin, with the key, until the result comes."""
    faulty.answers = [
        see("/result?id=1"),
        see(f"{faulty.url}/result?id=1"),
        lambda inputs: right(["7"]),
    ]
    assert_answers(["7"], either_client(faulty.url).embed_texts(["7"]))
    assert faulty.paths == ["POST /npz/embeddings", "GET /result", "GET /result"]
    assert {one.key for one in faulty.asked} == {"Bearer the-key"}


def test_polling_ends(either_client: Any, faulty: Faulty) -> None:
    """A result that never comes is a timeout, not an endless loop."""
    faulty.always = see("/result")
    with pytest.raises(faults.TimedOut):
        either_client(faulty.url, timeout=httpx.Timeout(0.5), attempts=1).embed_texts(["7"])


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_leak_nothing(
    either_client: Any, faulty: Faulty, other: Faulty, code: int
) -> None:
    """A redirect to another origin, even another port, is an error; nothing is sent there."""
    faulty.always = see(f"{other.url}/npz/embeddings", code)
    with pytest.raises((faults.UnsafeRedirect, faults.ServiceError)):
        either_client(faulty.url).embed_texts(["7"])
    assert other.asked == []


def test_redirect_with_a_name(either_client: Any, faulty: Faulty) -> None:
    """A user name in the redirect's address does not replace the key."""
    faulty.answers = [
        see(faulty.url.replace("//", "//user:word@") + "/result"),
        lambda inputs: right(["7"]),
    ]
    either_client(faulty.url).embed_texts(["7"])
    assert {one.key for one in faulty.asked} == {"Bearer the-key"}
