"""The ingestion worker: every page once, whatever happens meanwhile."""

import os
import random
import shutil
import string
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from workers import small_pdf, start

from conftest import EXAMPLES, KEY, Service
from pagevec.client import Client
from pagevec.errors import QueueFull, StoreError
from pagevec.ingest.names import name_documents
from pagevec.ingest.sources import find_documents
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.index import Index
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import ImageInput, Model, MultiVector


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.key) as opened:
        yield opened


def ingest(service: Service, store: Path, *paths: Path) -> list[Outcome]:
    with SqliteStore(store) as opened, Client(service.url, service.key) as client:
        return Worker(opened, client).ingest(name_documents(find_documents(paths), opened))


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
    assert page.grid is not None and page.grid.first + page.grid.cells <= len(page.token_vectors)
    assert len(page.vectors) < 0.6 * len(page.token_vectors)  # the bundled model's are condensed
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
    assert outcomes["b.pdf"].error is not None and "can be opened" in outcomes["b.pdf"].error
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
        assert Index(opened, client).prune([folder]).removed == ("in/goes.pdf",)
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
    assert "1 page stored" in done.stdout
    assert "bad.pdf" in (tmp_path / "s" / "logs" / "ingestion.log").read_text()


def test_ingest_acts(service: Service, tmp_path: Path) -> None:
    """A call of `ingest` stores the pages, whether or not anybody reads what it returns."""
    with SqliteStore(tmp_path / "store") as store, Client(service.url, service.key) as client:
        Worker(store, client).ingest(
            name_documents(find_documents([EXAMPLES / "notes.txt"]), store)
        )
        assert store.count() == 1


def test_progress_counts_pages(service: Service, tmp_path: Path) -> None:
    """Progress is (pages stored, pages known): it only grows, and ends with all pages stored."""
    document, seen = small_pdf(tmp_path / "long.pdf", 20), list[tuple[int, int]]()
    with SqliteStore(tmp_path / "store") as store, Client(service.url, service.key) as client:
        Worker(store, client).ingest(
            name_documents(find_documents([document]), store),
            lambda done, total: seen.append((done, total)),
        )
    assert seen == sorted(seen)
    assert seen[0] == (0, 20) and seen[-1] == (20, 20)


def ingest_with(store: Store, model: Model, *paths: Path) -> dict[str, Outcome]:
    outcomes = Worker(store, model).ingest(name_documents(find_documents(paths), store))
    return {Path(one.document).name: one for one in outcomes}


def test_a_name_that_a_store_refuses(client: Client, store_name: str, tmp_path: Path) -> None:
    """A name that is too long for a store's index costs that document; SQLite takes it."""
    chance = random.Random(1)  # noqa: S311 - not to be compressed, nothing secret
    deep = tmp_path / "in"
    for _ in range(12):
        deep /= "".join(chance.choices(string.ascii_letters + string.digits, k=240))
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("a page")
    (tmp_path / "in" / "good.txt").write_text("another page")
    with open_store(store_name) as store:
        outcomes = ingest_with(store, client, tmp_path / "in")
        assert outcomes["good.txt"].stored == 1
        is_refused = store_name.startswith("postgresql://")
        assert (outcomes["deep.txt"].error is not None) == is_refused
        assert store.count() == (1 if is_refused else 2)


def test_names_that_are_not_utf8(client: Client, store_name: str, tmp_path: Path) -> None:
    r"""Bytes of a name that are not UTF-8 are written as \xe9, in names, errors and the ledger."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("a page")
    (folder / os.fsdecode(b"th\xe9.pdf")).write_bytes(b"%PDF broken")
    with open_store(store_name) as store:
        outcomes = ingest_with(store, client, folder)
        assert outcomes[r"caf\xe9.txt"].stored == 1
        record = store.ledger.record(r"in/th\xe9.pdf")
        assert record is not None and record.error is not None
        assert record.error.startswith(rf"{folder}/th\xe9.pdf: not a PDF")
        assert ingest_with(store, client, folder)[r"caf\xe9.txt"].skipped


class Fussy:
    """A store, or its ledger, that refuses some calls of one method."""

    def __init__(self, inner: Any, method: str, refuses: Callable[..., bool]) -> None:
        self._inner, self._method, self._refuses = inner, method, refuses

    def __getattr__(self, name: str) -> Any:
        return self._call if name == self._method else getattr(self._inner, name)

    def _call(self, *arguments: Any) -> Any:
        if self._refuses(*arguments):
            raise StoreError("the disk is full")
        return getattr(self._inner, self._method)(*arguments)


def test_noting_a_failure_cannot_fail(client: Client, tmp_path: Path) -> None:
    """A ledger that refuses to note a failure ends nothing: the outcome says why, others go on."""
    (tmp_path / "in").mkdir()
    small_pdf(tmp_path / "in" / "good.pdf", 3)
    (tmp_path / "in" / "bad.pdf").write_bytes(b"%PDF broken")
    with SqliteStore(tmp_path / "store") as store:
        fussy = cast(Any, Fussy(store, "none", lambda: False))
        fussy.ledger = Fussy(store.ledger, "write", lambda record: record.error is not None)
        outcomes = ingest_with(fussy, client, tmp_path / "in")
        assert "not a PDF" in (outcomes["bad.pdf"].error or "")
        assert outcomes["good.pdf"].stored == 3
        assert store.ledger.record("in/bad.pdf") is None


def test_a_page_that_a_store_refuses(client: Client, tmp_path: Path) -> None:
    """A page that a store refuses costs that page; a store that takes none, the document."""
    document = small_pdf(tmp_path / "long.pdf", 10)
    with SqliteStore(tmp_path / "store") as store:
        fussy = Fussy(store, "add", lambda pages: any(page.key.number == 6 for page in pages))
        outcome = ingest_with(cast(Any, fussy), client, document)["long.pdf"]
        assert (outcome.stored, [fault.number for fault in outcome.faults]) == (9, [6])
        assert "page 6 cannot be stored: the disk is full" in (outcome.error or "")
        assert ingest_with(store, client, document)["long.pdf"].stored == 1
        full = Fussy(store, "add", lambda pages: True)
        another = small_pdf(tmp_path / "another.pdf", 10)
        outcome = ingest_with(cast(Any, full), client, another)["another.pdf"]
        assert (outcome.stored, outcome.error) == (0, f"{another}: the disk is full")


def test_a_file_that_vanishes(client: Client, store_name: str, tmp_path: Path) -> None:
    """A file that is gone when its turn comes is one failed outcome that names it."""
    files = [small_pdf(tmp_path / name, 2) for name in ("goes.pdf", "stays.pdf")]
    with open_store(store_name) as store:
        documents = name_documents(find_documents(files), store)
        files[0].unlink()
        goes, stays = Worker(store, client).ingest(documents)
    assert goes.error == f"{files[0]}: No such file or directory"
    assert (stays.stored, stays.error) == (2, None)


def test_a_file_that_changes(client: Client, store_name: str, tmp_path: Path) -> None:
    """Pages of two versions of a file never pass for one: it is read again by the next run."""
    document = small_pdf(tmp_path / "report.pdf", 30)
    content = document.read_bytes()

    class Meddler:
        """Embeds pages, and writes another version of the file meanwhile."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
            small_pdf(document, 25)
            return client.embed_images(images)

    with open_store(store_name) as store:
        outcome = ingest_with(store, cast(Any, Meddler()), document)["report.pdf"]
        assert outcome.error == f"{document}: the file changed while it was read; ingest it again"
        document.write_bytes(content)  # the first version, of which pages may be wrong
        outcome = ingest_with(store, client, document)["report.pdf"]
        assert (outcome.stored, outcome.error) == (30, None)


def test_a_service_that_stumbles(client: Client, tmp_path: Path) -> None:
    """A request that the service fails ends its document, and no page of the others."""
    files = [small_pdf(tmp_path / f"{number}.pdf", 40) for number in range(4)]
    lock, calls = threading.Lock(), list[int]()

    class Stumbling:
        """Fails the third request."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
            with lock:
                calls.append(len(images))
                is_third = len(calls) == 3
            if is_third:
                raise QueueFull("too much work is waiting already")
            return client.embed_images(images)

    with SqliteStore(tmp_path / "store") as store:
        outcomes = ingest_with(store, cast(Any, Stumbling()), *files)
        [failed] = [one for one in outcomes.values() if one.error is not None]
        assert "too much work" in (failed.error or "")
        assert [one.stored for one in outcomes.values() if one is not failed] == [40] * 3
        missing = 160 - store.count()
        again = ingest_with(store, client, *files)
        assert sum(one.stored for one in again.values()) == missing > 0
        assert store.count() == 160
