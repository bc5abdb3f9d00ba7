"""The ingestion worker: every page once, whatever happens meanwhile."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from workers import small_pdf, start

from conftest import EXAMPLES, KEY, Service
from pagevec.client import Client
from pagevec.ingest.names import name_documents
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.index import Index
from pagevec.stores.sqlite.store import SqliteStore


def ingest(service: Service, store: Path, *paths: Path) -> list[Outcome]:
    with SqliteStore(store) as opened, Client(service.url, service.key) as client:
        return Worker(opened, client).ingest(name_documents(list(paths), opened))


def pages_in(store: Path, document: Path) -> frozenset[int]:
    opened = SqliteStore(store)
    numbers = opened.has(f"{document.parent.name}/{document.name}")
    assert opened.count() >= len(numbers)
    opened.close()
    return numbers


def test_examples(service: Service, tmp_path: Path) -> None:
    """Every page of every example is stored; a second run stores nothing."""
    store = tmp_path / "store"
    outcomes = ingest(service, store, EXAMPLES)
    assert sorted(outcome.stored for outcome in outcomes) == [1, 1, 6]
    assert all(outcome.error is None for outcome in outcomes)
    assert all(outcome.skipped for outcome in ingest(service, store, EXAMPLES))
    opened = SqliteStore(store)
    assert opened.count() == 8
    [page] = opened.fetch(
        [key for key in opened.candidates(np.ones((1, 128), np.float32), 10) if key.number == 3]
    )
    assert page.text is not None and "41,983" in page.text
    assert page.thumbnail is not None
    assert page.grid is not None and page.grid.first + page.grid.cells <= len(page.vectors)
    opened.close()


def test_a_changed_document(service: Service, tmp_path: Path) -> None:
    """A document that has changed is stored anew; pages it no longer has are gone."""
    document, store = tmp_path / "report.pdf", tmp_path / "store"
    small_pdf(document, 5)
    ingest(service, store, document)
    small_pdf(document, 2)
    [outcome] = ingest(service, store, document)
    assert outcome.stored == 2
    assert pages_in(store, document) == {1, 2}


def test_a_broken_document_stops_nothing(service: Service, tmp_path: Path) -> None:
    """What cannot be read is reported by name; the others are stored; a mended file is taken."""
    good, bad, store = tmp_path / "a.pdf", tmp_path / "b.pdf", tmp_path / "store"
    small_pdf(good, 3)
    bad.write_bytes(b"%PDF-1.4 broken")
    outcomes = {Path(one.document).name: one for one in ingest(service, store, tmp_path)}
    assert outcomes["a.pdf"].stored == 3
    assert outcomes["b.pdf"].error is not None and "cannot be opened" in outcomes["b.pdf"].error
    small_pdf(bad, 1)
    again = {Path(one.document).name: one for one in ingest(service, store, tmp_path)}
    assert again["b.pdf"].stored == 1


def test_a_vanished_document(service: Service, tmp_path: Path) -> None:
    """A document whose file is gone leaves the store when its folder is kept in step."""
    folder, store = tmp_path / "in", tmp_path / "store"
    folder.mkdir()
    small_pdf(folder / "stays.pdf", 1)
    small_pdf(folder / "goes.pdf", 2)
    ingest(service, store, folder)
    (folder / "goes.pdf").unlink()
    with SqliteStore(store) as opened, Client(service.url, service.key) as client:
        assert Index(opened, client).remove_missing([folder]) == ["in/goes.pdf"]
        assert opened.count() == 1


def test_two_workers_share_a_store(service: Service, tmp_path: Path) -> None:
    """Two workers over the same folder store every page once between them."""
    folder, store = tmp_path / "in", tmp_path / "store"
    folder.mkdir()
    for number in range(6):
        small_pdf(folder / f"{number}.pdf", 4)
    workers = [start(service, store, folder) for _ in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    opened = SqliteStore(store)
    assert opened.count() == 24
    opened.close()


def test_strict(service: Service, tmp_path: Path) -> None:
    """With --strict a broken document shows in the exit code, after all others are stored."""
    (tmp_path / "bad.pdf").write_bytes(b"%PDF broken")
    shutil.copy(EXAMPLES / "notes.txt", tmp_path)
    arguments = ["ingest", tmp_path, "--store", tmp_path / "s", "--url", service.url, "--strict"]
    done = subprocess.run(
        [sys.executable, "-c", "from pagevec.cli import main; main()", *map(str, arguments)],
        env={**os.environ, "SERVICE_API_KEY": KEY},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "bad.pdf" in done.stderr
    assert "1 pages stored" in done.stdout
    assert "bad.pdf" in (tmp_path / "logs" / "worker_ingestion.log").read_text()


def test_ingest_acts(service: Service, tmp_path: Path) -> None:
    """A call of `ingest` stores the pages, whether or not anybody reads what it returns."""
    with SqliteStore(tmp_path / "store") as store, Client(service.url, service.key) as client:
        Worker(store, client).ingest(name_documents([EXAMPLES / "notes.txt"], store))
        assert store.count() == 1


def test_progress_counts_pages(service: Service, tmp_path: Path) -> None:
    """Progress is (pages stored, pages known): it only grows, and ends with all pages stored."""
    document, seen = small_pdf(tmp_path / "long.pdf", 20), list[tuple[int, int]]()
    with SqliteStore(tmp_path / "store") as store, Client(service.url, service.key) as client:
        Worker(store, client).ingest(
            name_documents([document], store), lambda done, total: seen.append((done, total))
        )
    assert seen == sorted(seen)
    assert seen[0] == (0, 20) and seen[-1] == (20, 20)
