"""A worker that is killed, again and again, and what is in the store in the end."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
import pytest
from odd_documents import write_odd_documents
from starlette.types import ASGIApp, Receive, Scope, Send
from workers import small_pdf, start

from conftest import Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.registry import BUNDLED_REVISION
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.condense import MEASURED
from pagevec.types import DocumentRecord, PageKey
from postgres_server import new_database

pytestmark = pytest.mark.long

PAGES, KILLS = 200, 20
PAUSE = 0.2  # seconds


class Slow:
    """Lets each call wait before it is served, so that a killed worker is never done already."""

    calls = 0

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            Slow.calls += 1
            await asyncio.sleep(PAUSE)
        await self._app(scope, receive, send)


@pytest.fixture
def slow_service(embedder: LocalEmbedder) -> Iterator[Service]:
    with running(embedder, make_settings(), Slow) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_killed_at_random_moments(
    slow_service: Service, postgres: str, folder: Path, tmp_path: Path
) -> None:
    """Killed 20 times while ingesting 200 pages, then finished: in each store each page once."""
    small_pdf(folder / "long.pdf", PAGES)
    kill_in_both_stores(slow_service, postgres, folder, tmp_path)


@pytest.mark.timeout(900)
def test_killed_beside_a_qdrant_server(
    slow_service: Service, qdrant: str, folder: Path, tmp_path: Path
) -> None:
    """A store in Qdrant is complete after 20 kills, and has each page once."""
    small_pdf(folder / "long.pdf", PAGES)
    expected = undisturbed(slow_service, folder, tmp_path)
    name = kill_and_finish(slow_service, f"{qdrant}/killed", folder, len(expected.keys))
    assert_as(expected, name)


@pytest.mark.timeout(900)
def test_killed_with_qdrants_engine(slow_service: Service, folder: Path, tmp_path: Path) -> None:
    """A worker that has Qdrant's engine in its process is killed: what it stored is there, once.

    Nobody else may look into the folder meanwhile: the calls of the service tell how far it is.
    """
    small_pdf(folder / "long.pdf", PAGES // 2)
    expected = undisturbed(slow_service, folder, tmp_path)
    name = f"qdrant:{tmp_path / 'store'}"
    chance = random.Random(6)  # noqa: S311 - repeatable, not secret
    stored = kills = 0
    while stored < 0.8 * len(expected.keys):
        worker = start(slow_service, name, folder)
        wanted = Slow.calls + chance.randrange(2, 5)
        wait_until(lambda: Slow.calls >= wanted)  # noqa: B023
        time.sleep(2 * PAUSE * chance.random())
        worker.kill()
        worker.wait()
        kills += 1
        with open_store(name) as store:
            assert stored <= store.count()
            stored = store.count()
    assert kills > 5
    assert start(slow_service, name, folder).wait(240) == 0
    assert_as(expected, name)


@pytest.mark.timeout(900)
def test_killed_among_odd_documents(
    slow_service: Service, postgres: str, folder: Path, tmp_path: Path
) -> None:
    """Killed 20 times among documents that fail in all ways: the stores are as if undisturbed."""
    write_odd_documents(folder)
    kill_in_both_stores(slow_service, postgres, folder, tmp_path)


def kill_in_both_stores(service: Service, postgres: str, folder: Path, scratch: Path) -> None:
    expected = undisturbed(service, folder, scratch)
    total = len(expected.keys)
    names = [str(scratch / "store"), new_database(postgres)]
    # Both at once: most of the time goes into starting processes.
    with ThreadPoolExecutor(len(names)) as pool:
        for name in pool.map(lambda name: kill_and_finish(service, name, folder, total), names):
            assert_as(expected, name)


@dataclass(frozen=True)
class Expected:
    """What an ingestion that nobody kills leaves in a store."""

    keys: list[PageKey]
    vectors: list[np.ndarray]
    records: list[DocumentRecord]


def undisturbed(service: Service, folder: Path, scratch: Path) -> Expected:
    name = str(scratch / "undisturbed")
    assert start(service, name, folder).wait(240) == 0
    keys = keys_in(name)
    return Expected(keys, all_vectors(name, keys), records_in(name))


def assert_as(expected: Expected, name: str) -> None:
    assert keys_in(name) == expected.keys
    assert rows_in(name) == len(expected.keys)
    assert records_in(name) == expected.records
    for there, right in zip(all_vectors(name, expected.keys), expected.vectors, strict=True):
        # Each is near to what was embedded, so they are near to each other: twice the angle.
        near = 2 * MEASURED["bundled", BUNDLED_REVISION] ** 2 - 1
        assert np.vecdot(there, right).min() >= near - 1e-3


def kill_and_finish(service: Service, name: str, folder: Path, total: int) -> str:
    """Ingest `folder` with workers that are killed at random places of the way, but the last."""
    store = open_store(name)
    chance = random.Random(4)  # noqa: S311 - repeatable, not secret
    # Places that are passed already stand for moments in the worker's start.
    for pages in sorted(chance.randrange(total // 2) for _ in range(KILLS)):
        worker = start(service, name, folder)
        if store.count() >= pages:
            time.sleep(chance.random())
        wait_for(store, pages)
        time.sleep(0.05 * chance.random())
        assert worker.poll() is None
        worker.kill()
        worker.wait()
        assert store.count() < total
    assert start(service, name, folder).wait(240) == 0
    store.close()
    return name


def wait_for(store: Store, pages: int) -> None:
    wait_until(lambda: store.count() >= pages)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "nothing happens"
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


def records_in(name: str) -> list[DocumentRecord]:
    with open_store(name) as store:
        return store.ledger.records()


def keys_in(name: str) -> list[PageKey]:
    with open_store(name) as store:
        documents = [record.name for record in store.ledger.records()]
        return [PageKey(one, number) for one in documents for number in sorted(store.has(one))]


def all_vectors(name: str, keys: list[PageKey]) -> list[np.ndarray]:
    with open_store(name) as store:
        return [page.token_vectors for page in store.fetch(keys)]
