"""A worker that is killed, again and again, and what is in the store in the end."""

import random
import time
from pathlib import Path

import numpy as np
import psycopg
from workers import small_pdf, start

from conftest import Service
from pagevec.ingest.worker import name_of
from pagevec.stores.base import DocumentStore
from pagevec.stores.open import open_store
from pagevec.types import PageKey

PAGES, KILLS = 200, 20


def test_killed_at_random_moments(service: Service, store_name: str, tmp_path: Path) -> None:
    """Killed 20 times while ingesting 200 pages, then finished: each page once, in its place."""
    folder = tmp_path / "in"
    folder.mkdir()
    document = small_pdf(folder / "long.pdf", PAGES)
    store = open_store(store_name)
    chance = random.Random(4)  # noqa: S311 - repeatable, not secret
    # Somewhere in the way of the document; moments that have passed already are the worker's start.
    for pages in sorted(chance.randrange(PAGES * 3 // 4) for _ in range(KILLS)):
        worker = start(service, store_name, document)
        if store.count() >= pages:
            time.sleep(chance.random())
        wait_for(store, pages)
        time.sleep(0.05 * chance.random())
        assert worker.poll() is None
        worker.kill()
        worker.wait()
        assert store.count() < PAGES
    assert start(service, store_name, document).wait(120) == 0
    assert store.has(name_of(document)) == set(range(1, PAGES + 1))
    assert rows_in(store, store_name) == PAGES
    undisturbed = open_store(str(tmp_path / "undisturbed"))
    assert start(service, str(tmp_path / "undisturbed"), document).wait(120) == 0
    found, expected = (all_vectors(one, document) for one in (store, undisturbed))
    for there, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(there, right, atol=1e-3)
    store.close()
    undisturbed.close()


def wait_for(store: DocumentStore, pages: int) -> None:
    end = time.monotonic() + 60
    while store.count() < pages:
        assert time.monotonic() < end, f"{store.count()} of {pages} pages"
        time.sleep(0.005)


def rows_in(store: DocumentStore, name: str) -> int:
    """Count the rows themselves: PostgreSQL's table would allow a page twice."""
    if not name.startswith("postgresql://"):
        return store.count()
    with psycopg.connect(name) as connection:
        row = connection.execute("SELECT count(*) FROM multi_vector_embeddings").fetchone()
    assert row is not None
    return int(row[0])


def all_vectors(store: DocumentStore, document: Path) -> list[np.ndarray]:
    keys = [PageKey(name_of(document), number) for number in range(1, PAGES + 1)]
    return [page.vectors for page in store.fetch(keys)]
