"""`pagevec store backup`: a copy that is whole, made while others write; or none at all."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from contract import ADD_FOR_EVER, another_process, as_mere_user

from conftest import Service, pagevec
from ingest.workers import small_pdf, start
from pagevec.client import Client
from pagevec.errors import InvalidRequest, StoreError
from pagevec.search.index import Index
from pagevec.stores import back_up_store, open_store
from pagevec.stores.sqlite import backup
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import DocumentRecord, Page, PageKey
from vectors import page, unit_vectors

FORMER = Path(__file__).parents[1] / "former"
REVISION = "SELECT revision FROM store"
KEYS = "SELECT document, number FROM pages WHERE revision <= ? ORDER BY id"

BACK_UP = """
from pathlib import Path
from pagevec.errors import InvalidRequest, StoreError
from pagevec.stores import back_up_store
try:
    print(back_up_store(sys.argv[1], Path(sys.argv[1]).parent / "copy").pages)
except StoreError as error:
    print(error)
"""
# Writes of more than 200 kB fail, as on a disk that is full.
LIMITED = """
import resource, sys
from pathlib import Path
from pagevec.stores import back_up_store
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
back_up_store(sys.argv[1], Path(sys.argv[2]))
"""


def fill(folder: Path, count: int = 60) -> Path:
    """Make a store with everything that a store can hold."""
    with SqliteStore(folder) as store:
        fields = {"metadata": {"n": 1}, "text": "fares", "thumbnail": b"picture"}
        store.add([page("reports/a", number, **fields) for number in range(1, count + 1)])
        store.save_fingerprint(unit_vectors(3, 1))
        store.ledger.write(DocumentRecord("reports/a", "hash", count, True))
        store.ledger.set_label("reports", "/srv/reports")
    return folder


def rows(store: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store / FILE)) as connection:
        return connection.execute(query, values).fetchall()


def dump(store: Path) -> list[str]:
    """Return the whole content of a store, as SQL."""
    with closing(sqlite3.connect(store / FILE)) as connection:
        return list(connection.iterdump())


def test_everything_is_copied(tmp_path: Path) -> None:
    """Pages, vectors, thumbnails, ledger, labels and fingerprint: the copy is the same store.

    It lets nobody read it who may not read the store.
    """
    store = fill(tmp_path / "store")
    store.chmod(0o750)
    (store / FILE).chmod(0o640)
    shown: list[tuple[int, int]] = []
    made = back_up_store(str(store), tmp_path / "copy", lambda *done: shown.append(done))
    assert (made.pages, made.documents) == (60, 1)
    assert made.bytes == (made.folder / FILE).stat().st_size
    assert shown[-1] == (made.bytes, made.bytes)
    assert [file.name for file in made.folder.iterdir()] == [FILE]
    assert dump(made.folder) == dump(store)
    modes = [path.stat().st_mode & 0o777 for path in (made.folder, made.folder / FILE)]
    assert modes == [0o750, 0o640]


def test_a_writer_that_never_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is the store as it was at one moment, while another process adds page after page.

    It neither waits for the writer, nor starts again because of it, nor stops it.
    """
    monkeypatch.setattr(backup, "_STEP", 16)
    store, copy = fill(tmp_path / "store", 1000), tmp_path / "copy"
    writer = another_process(str(store), ADD_FOR_EVER)
    assert writer.stdout is not None
    steps: list[str] = []
    try:
        writer.stdout.readline()
        before = rows(store, REVISION)
        # Between any two steps of the copy the writer has committed another page.
        made = back_up_store(str(store), copy, lambda *done: steps.append(writer.stdout.readline()))
        after = rows(store, REVISION)
    finally:
        writer.kill()
        writer.communicate()
    [(revision,)] = rows(copy, REVISION)
    assert before[0] <= (revision,) < after[0]
    assert 5 < len(steps) < 50
    # All that was committed until then, and nothing later.
    assert rows(copy, KEYS, 10**9) == rows(store, KEYS, revision)
    with SqliteStore(copy) as opened:
        keys = [PageKey(str(document), int(str(n))) for document, n in rows(copy, KEYS, revision)]
        assert len(opened.fetch(keys)) == made.pages == opened.count()


@pytest.mark.long
def test_a_backup_during_an_ingestion(service: Service, tmp_path: Path) -> None:
    """The copy of a store that `pagevec ingest` writes to is searched, and ingestion goes on in it.

    Nothing that it has is embedded again.
    """
    documents = [small_pdf(tmp_path / f"{name}.pdf", 60) for name in "abc"]
    store, copy = tmp_path / "store", tmp_path / "copy"
    worker = start(service, store, *documents)
    try:
        end = time.monotonic() + 60
        while not (store / FILE).exists() or not rows(store, "SELECT 1 FROM sqlite_master"):
            assert time.monotonic() < end
            time.sleep(0.05)
        while rows(store, "SELECT count(*) FROM pages") < [(20,)]:
            assert time.monotonic() < end
            time.sleep(0.05)
        done = pagevec("store", "backup", store, "--to", copy)
        assert done.returncode == 0, done.stderr
        assert worker.poll() is None, "the ingestion was over before the backup"
        assert worker.wait(120) == 0
    finally:
        worker.kill()
    [(revision,)], [(copied,)] = rows(copy, REVISION), rows(copy, "SELECT count(*) FROM pages")
    assert 20 <= int(str(copied)) < 180
    assert f"{copied} pages" in done.stdout
    assert rows(copy, KEYS, 10**9) == rows(store, KEYS, revision)
    with Client(service.url, service.key) as model, Index(str(copy), model) as index:
        [hit] = index.search("page 7", k=1)
        assert hit.document.endswith(".pdf")
        report = index.add(documents)
    assert (report.pages_stored, report.failed) == (180 - int(str(copied)), ())
    assert rows(copy, "SELECT count(*) FROM pages") == [(180,)]


def test_a_store_of_0_1_is_left_as_it_is(tmp_path: Path) -> None:
    """A store can be backed up by the new version before that upgrades it; the copy opens."""
    store, copy = tmp_path / "store", tmp_path / "copy"
    store.mkdir()
    before = (FORMER / "pages.sqlite3").read_bytes()
    (store / FILE).write_bytes(before)
    assert back_up_store(str(store), copy).pages == 3
    assert (store / FILE).read_bytes() == before
    assert dump(copy) == dump(store)
    with open_store(str(copy)) as opened:
        assert opened.count() == 3
    assert rows(copy, "PRAGMA user_version") > rows(store, "PRAGMA user_version")


def test_the_target_is_never_overwritten(tmp_path: Path) -> None:
    """A folder with anything in it is refused and stays as it is; an empty one is taken."""
    store = fill(tmp_path / "store")
    for name in (FILE, f"{FILE}.part", "notes.txt"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(InvalidRequest, match="is not empty"):
            back_up_store(str(store), folder)
        assert (folder / name).read_text() == "mine"
    with pytest.raises(InvalidRequest, match="is not empty"):
        back_up_store(str(store), store)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert back_up_store(str(store), empty).pages == 60


def test_a_killed_backup_is_no_backup(tmp_path: Path) -> None:
    """What a killed backup leaves is no store, and another backup does not take it for its own."""
    store, copy = fill(tmp_path / "store", 5000), tmp_path / "copy"
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, signal, sys; from pathlib import Path; from pagevec.stores import *;"
            "back_up_store(sys.argv[1], Path(sys.argv[2]),"
            " lambda done, total: os.kill(os.getpid(), signal.SIGKILL))",
            store,
            copy,
        ]
    )
    assert killed.wait(60) == -signal.SIGKILL
    assert any(copy.iterdir())
    with pytest.raises(StoreError, match="no store at"):
        open_store(str(copy), create=False)
    with pytest.raises(InvalidRequest, match="is not empty"):
        back_up_store(str(store), copy)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A copy that cannot be written is one sentence, and nothing of it is left."""
    store, copy = fill(tmp_path / "store"), tmp_path / "copy"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, store, copy], capture_output=True, text=True
    )
    assert f"StoreError: cannot back up the store {store} to {copy}" in done.stderr
    assert not copy.exists()


def test_a_damaged_store(tmp_path: Path) -> None:
    """A store whose file is damaged gives no backup that passes for a good one."""
    store, copy = fill(tmp_path / "store", 300), tmp_path / "copy"
    content = bytearray((store / FILE).read_bytes())
    content[-5 * 16384 :] = b"\xa5" * (5 * 16384)
    (store / FILE).write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        back_up_store(str(store), copy)
    assert not copy.exists()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000])
def test_what_is_no_store(content: bytes, tmp_path: Path) -> None:
    """An empty or a foreign file under a store's name is refused, and stays as it is."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=f"{FILE}.*store"):
        back_up_store(str(tmp_path / "store"), tmp_path / "copy")
    assert (tmp_path / "store" / FILE).read_bytes() == content
    assert not (tmp_path / "copy").exists()


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """A user who may only read a store can back it up; the copy can be written."""
    store = fill(tmp_path / "store")
    (store / FILE).chmod(0o444)
    store.chmod(0o555)
    try:
        assert as_mere_user(str(store), BACK_UP) == "60\n"
    finally:
        store.chmod(0o755)
    with SqliteStore(tmp_path / "copy") as opened:
        opened.add([page("b", 1)])


@pytest.mark.long
def test_the_command(tmp_path: Path) -> None:
    """It says what was copied; every mistake is one sentence, without a password."""
    store = fill(tmp_path / "store")
    done = pagevec("store", "backup", store, "--to", tmp_path / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("backed up: 60 pages of 1 document, 0.")
    for arguments, code, said in [
        ((store, "--to", tmp_path / "copy"), 2, "is not empty"),
        ((store, "--to", store / FILE), 2, "cannot back up to"),
        ((store, "--to", tmp_path / "no" / "copy"), 2, "No such file or directory"),
        ((tmp_path / "none", "--to", tmp_path / "other"), 3, "there is no store at"),
        ((store / FILE, "--to", tmp_path / "other"), 3, "there is no store at"),
        (("postgresql://me:pass@db/pages", "--to", "a.dump"), 2, "pg_dump --format=custom"),
        ((store,), 2, "--to"),
    ]:
        done = pagevec("store", "backup", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr and "pass@" not in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.long
def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C ends a backup at once, and leaves nothing of it."""
    vectors, copy = unit_vectors(1000, 1), tmp_path / "copy"
    with SqliteStore(tmp_path / "store") as opened:
        opened.add([Page(PageKey("a", number), vectors) for number in range(1, 801)])
    command = [sys.executable, "-m", "pagevec", "store", "backup", tmp_path / "store", "--to"]
    popen = subprocess.Popen([*command, copy], stderr=subprocess.PIPE, text=True)
    while not copy.exists():
        time.sleep(0.01)
    popen.send_signal(signal.SIGINT)
    _, said = popen.communicate(timeout=30)
    assert (popen.returncode, said) == (
        130,
        f"interrupted: there is no backup in {tmp_path}/copy\n",
    )
    assert not (tmp_path / "copy").exists()
