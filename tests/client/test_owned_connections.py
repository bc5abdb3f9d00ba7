"""Threads never share a connection while one of them uses it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from pagevec.client.connections import OwnedConnections

THREADS = 32


class Watched(httpx.BaseTransport):
    """A transport that notices when it is used by two requests at once, or after its end."""

    made: list["Watched"]

    def __init__(self) -> None:
        self.made.append(self)
        self.users = 0
        self.is_closed = False
        self.misuses = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.misuses += self.users or self.is_closed
        self.users += 1
        if request.url.path == "/breaks":
            self.users -= 1
            raise httpx.ReadError("the connection broke", request=request)
        return httpx.Response(200, stream=Content(self))

    def close(self) -> None:
        self.misuses += self.users
        self.is_closed = True


class Content(httpx.SyncByteStream):
    def __init__(self, transport: Watched) -> None:
        self._transport = transport

    def __iter__(self) -> Iterator[bytes]:
        threading.Event().wait(0.001)  # others get their turn
        yield b"ok"

    def close(self) -> None:
        self._transport.users -= 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> OwnedConnections:
    monkeypatch.setattr(Watched, "made", [], raising=False)
    return OwnedConnections(Watched)


def test_one_request_at_a_time(connections: OwnedConnections) -> None:
    """Under more threads than connections are kept, none is shared or closed while in use."""
    with httpx.Client(transport=connections) as client, ThreadPoolExecutor(THREADS) as threads:
        answers = threads.map(lambda _: client.get("http://service/").text, range(40 * THREADS))
        assert set(answers) == {"ok"}
        assert sum(one.misuses for one in Watched.made) == 0
        assert 0 < sum(not one.is_closed for one in Watched.made) <= 20  # kept for later
    assert all(one.is_closed for one in Watched.made)


def test_connections_are_used_again(connections: OwnedConnections) -> None:
    """One request after the other takes one connection; one that broke is closed, not kept."""
    with httpx.Client(transport=connections) as client:
        for _ in range(3):
            client.get("http://service/")
        assert len(Watched.made) == 1
        with pytest.raises(httpx.ReadError):
            client.get("http://service/breaks")
        assert Watched.made[0].is_closed
        client.get("http://service/")
    assert [one.misuses for one in Watched.made] == [0, 0]


def test_an_answer_outlives_its_client(connections: OwnedConnections) -> None:
    """A connection whose answer is still read is closed with the answer, not with the client."""
    client = httpx.Client(transport=connections)
    with client.stream("GET", "http://service/") as response:
        client.close()
        assert not Watched.made[0].is_closed
        assert response.read() == b"ok"
    assert Watched.made[0].is_closed
    assert Watched.made[0].misuses == 0
