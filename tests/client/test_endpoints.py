"""Several addresses of one service."""

import time
from typing import Any

import pytest

from client.faulty import Faulty, assert_answers, made, numbers, status
from pagevec.client import Client
from pagevec.client.endpoints import Endpoints
from pagevec.errors import ConfigurationError

NOBODY = "http://127.0.0.1:9"


def test_fails_over(twin: Any, faulty: Faulty) -> None:
    """Where one address fails the other answers, without waiting."""
    started = time.monotonic()
    texts = numbers(20)
    vectors = twin([NOBODY, faulty.url], max_inputs=3, patience=60.0).embed_texts(texts)
    assert_answers(texts, vectors)
    assert time.monotonic() - started < 5


def test_share_the_work(twin: Any, faulty: Faulty, other: Faulty) -> None:
    """Addresses take turns."""
    texts = numbers(20)
    assert_answers(texts, twin([faulty.url, other.url], max_inputs=2).embed_texts(texts))
    assert len(faulty.posts) + len(other.posts) == 10
    assert min(len(faulty.posts), len(other.posts)) >= 4


def test_recovers(faulty: Faulty, other: Faulty) -> None:
    """An address that failed is left alone for a while, then asked again."""
    faulty.answers = [status(500)]
    with made(Client, [faulty.url, other.url], set_aside_seconds=1.0) as client:
        for _ in range(4):
            client.embed_query("1")
        assert len(faulty.posts) == 1
        time.sleep(1.0)
        for _ in range(4):
            client.embed_query("1")
        assert len(faulty.posts) > 1


def test_all_fail(twin: Any, faulty: Faulty, other: Faulty) -> None:
    """Where all addresses stay faulty the call ends with their error."""
    faulty.always = other.always = status(500)
    with pytest.raises(Exception, match="500"):
        twin([faulty.url, other.url], attempts=1).embed_texts(["1"])
    assert (len(faulty.posts), len(other.posts)) == (1, 1)


def test_when_all_are_set_aside() -> None:
    """The one whose time ends first is asked."""
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
    """An address that cannot be asked is refused when the client is made."""
    with pytest.raises(ConfigurationError):
        Client(urls)
