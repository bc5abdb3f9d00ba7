"""Faulty services, and both clients behind one face, so that every test is of both."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from client.faulty import Faulty, made, serving
from pagevec.client import AsyncClient, Client


class Awaited:
    """An `AsyncClient` whose calls are waited for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._made = args, options

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return asyncio.run(self._call(name, *args, **options))

        return call

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        made_with, made_options = self._made
        async with made(AsyncClient, *made_with, **made_options) as client:
            return await getattr(client, name)(*args, **options)


class Direct:
    """A `Client` that makes its connections anew for each call, as `Awaited` does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._made = args, options

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            made_with, made_options = self._made
            with made(Client, *made_with, **made_options) as client:
                return getattr(client, name)(*args, **options)

        return call


@pytest.fixture(params=[Direct, Awaited], ids=["Client", "AsyncClient"])
def twin(request: pytest.FixtureRequest) -> Any:
    """Makes a client: one test, two clients."""
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
