"""A worker that is killed, again and again, and what is in the store in the end."""

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from workers import small_pdf, start

from conftest import Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.types import PageKey
from postgres_server import new_database

PAGES, KILLS = 200, 20
NAME = "in/long.pdf"
PAUSE = 0.2  # seconds


class Slow:
    """Lets each call wait before it is served, so that a killed worker is never done already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            await asyncio.sleep(PAUSE)
        await self._app(scope, receive, send)


@pytest.fixture
def slow_service(embedder: LocalEmbedder) -> Iterator[Service]:
    with running(embedder, make_settings(), Slow) as started:
        yield started


def test_killed_at_random_moments(slow_service: Service, postgres: str, tmp_path: Path) -> None:
    """Killed 20 times while ingesting 200 pages, then finished: in each store each page once."""
    folder = tmp_path / "in"
    folder.mkdir()
    document = small_pdf(folder / "long.pdf", PAGES)
    undisturbed = str(tmp_path / "undisturbed")
    assert start(slow_service, undisturbed, document).wait(120) == 0
    expected = all_vectors(undisturbed, document)
    names = [str(tmp_path / "store"), new_database(postgres)]
    # Both at once: most of the time goes into starting processes.
    with ThreadPoolExecutor(len(names)) as pool:
        for name in pool.map(lambda name: kill_and_finish(slow_service, name, document), names):
            assert rows_in(name) == PAGES
            for there, right in zip(all_vectors(name, document), expected, strict=True):
                np.testing.assert_allclose(there, right, atol=1e-3)


def kill_and_finish(service: Service, name: str, document: Path) -> str:
    """Ingest `document` with workers that are killed at random places of the way, but the last."""
    store = open_store(name)
    chance = random.Random(4)  # noqa: S311 - repeatable, not secret
    # Places that are passed already stand for moments in the worker's start.
    for pages in sorted(chance.randrange(PAGES // 2) for _ in range(KILLS)):
        worker = start(service, name, document)
        if store.count() >= pages:
            time.sleep(chance.random())
        wait_for(store, pages)
        time.sleep(0.05 * chance.random())
        assert worker.poll() is None
        worker.kill()
        worker.wait()
        assert store.count() < PAGES
    assert start(service, name, document).wait(120) == 0
    assert store.has(NAME) == set(range(1, PAGES + 1))
    store.close()
    return name


def wait_for(store: Store, pages: int) -> None:
    end = time.monotonic() + 60
    while store.count() < pages:
        assert time.monotonic() < end, f"{store.count()} of {pages} pages"
        time.sleep(0.005)


def rows_in(name: str) -> int:
    """Count the rows themselves: PostgreSQL's table would allow a page twice."""
    if not name.startswith("postgresql://"):
        store = open_store(name)
        count = store.count()
        store.close()
        return count
    with psycopg.connect(name) as connection:
        row = connection.execute("SELECT count(*) FROM multi_vector_embeddings").fetchone()
    assert row is not None
    return int(row[0])


def all_vectors(name: str, document: Path) -> list[np.ndarray]:
    store = open_store(name)
    keys = [PageKey(NAME, number) for number in range(1, PAGES + 1)]
    vectors = [page.vectors for page in store.fetch(keys)]
    store.close()
    return vectors
