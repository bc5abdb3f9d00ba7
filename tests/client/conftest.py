"""Faulty services, and both clients behind one interface, so that one test covers both."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from client.faulty import Faulty, make_client, serving
from pagevec.client import AsyncClient, Client


class Awaited:
    """An `AsyncClient` for callers that are not asynchronous."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._made = args, options

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return asyncio.run(self._call(name, *args, **options))

        return call

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        made_with, made_options = self._made
        async with make_client(AsyncClient, *made_with, **made_options) as client:
            return await getattr(client, name)(*args, **options)


class Direct:
    """A `Client` that connects anew for each call, as `Awaited` does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._made = args, options

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            made_with, made_options = self._made
            with make_client(Client, *made_with, **made_options) as client:
                return getattr(client, name)(*args, **options)

        return call


@pytest.fixture(params=[Direct, Awaited], ids=["Client", "AsyncClient"])
def either_client(request: pytest.FixtureRequest) -> Any:
    """Return the class of each client in turn, so that a test runs for both."""
    return request.param


@pytest.fixture(scope="session")
def _first() -> Iterator[Faulty]:
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def _second() -> Iterator[Faulty]:
    with serving() as started:
        yield started


@pytest.fixture
def faulty(_first: Faulty) -> Faulty:
    return _first.reset()


@pytest.fixture
def other(_second: Faulty) -> Faulty:
    return _second.reset()
