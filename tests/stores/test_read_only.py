"""A store that cannot be written is searched as it is, and says so where it would be written."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from contract import as_mere_user

from pagevec.errors import StoreError
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.sqlite.store import FILE, SqliteStore
from postgres_server import new_database
from vectors import page, unit_vectors

FORMER = Path(__file__).parents[1] / "former"

READ = """
from pagevec.ingest.catalogue import Catalogue
from pagevec.search.retriever import Retriever
from pagevec.stores import hamming
documents = [(one.name, one.stored) for one in Catalogue(store).list()]
found = []
for hamming.SCAN_FROM in (2000, 0):
    [best] = Retriever(None, store).search_vectors(page("a", 2).vectors, 1)
    found.append((best.key.document, best.key.number))
print(documents, found, store.fingerprint() is not None, store.ledger.labels())
"""
WRITE = """
from pagevec.errors import StoreError
for write in (
    lambda: store.add([page("b", 1)]),
    lambda: store.ledger.lease("b", "worker", 15),
    lambda: store.ledger.set_label("b", "/b"),
    lambda: store.save_fingerprint(page("a", 1).vectors),
    lambda: store.delete("a"),
):
    try:
        write()
    except StoreError as error:
        print(error)
"""
REPLACE = """
import os
from pagevec.errors import StoreError
other = os.path.dirname(sys.argv[1]) + "/other"
try:
    with store._database.reading() as connection:
        connection.execute("SELECT count(*) FROM pages").fetchone()
        os.chmod(sys.argv[1], 0o755)
        os.replace(other + "/pages.sqlite3", sys.argv[1] + "/pages.sqlite3")
except StoreError as error:
    print(error)
"""
HAS_TWO_PAGES = "[('a', 2)] [('a', 2), ('a', 2)] True {'reports': '/srv/reports'}"


def fill(store: Store) -> None:
    store.add([page("a", 1), page("a", 2)])
    store.save_fingerprint(unit_vectors(3, 1))
    store.ledger.set_label("reports", "/srv/reports")


@pytest.fixture(params=["closed", "log", "log and index"])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A store as its last writer left it: closed, or killed with pages in the write-ahead log."""
    live, folder = tmp_path / "live", tmp_path / "store"
    folder.mkdir()
    with SqliteStore(live) as store:
        fill(store)
        if request.param != "closed":
            shutil.copytree(live, folder, dirs_exist_ok=True)
    if request.param == "closed":
        shutil.copytree(live, folder, dirs_exist_ok=True)
    if request.param == "log":
        (folder / f"{FILE}-shm").unlink()
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("in_folder", [True, False])
def test_a_folder_without_write_permission(left: Path, in_folder: bool) -> None:
    """Whatever the last writer left, all of it is found, listed and read, and nothing is written.

    Either nothing may be written at all, or the folder would take files, but these are read-only.
    """
    for file in left.iterdir():
        file.chmod(0o444)
    if in_folder:
        left.chmod(0o555)
    before = {file.name: file.read_bytes() for file in left.glob(FILE)}
    assert as_mere_user(str(left), READ).strip() == HAS_TWO_PAGES
    sentences = as_mere_user(str(left), WRITE).splitlines()
    assert len(sentences) == 5
    assert all(str(left / FILE) in one and "can be searched" in one for one in sentences)
    assert {file.name: file.read_bytes() for file in left.glob(FILE)} == before


def test_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    """A store on a file system that is mounted read-only is searched, even by root."""
    with SqliteStore(tmp_path / "store") as store:
        fill(store)
    (tmp_path / "mounted").mkdir()
    script = (
        f"mount --bind {tmp_path}/store {tmp_path}/mounted && "
        f'mount -o remount,ro,bind {tmp_path}/mounted && exec $0 -c "$1" {tmp_path}/mounted'
    )
    program = "import sys; from vectors import page; from pagevec.stores import open_store\n"
    program += "store = open_store(sys.argv[1], create=False)\n" + READ
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.stdout.strip() == HAS_TWO_PAGES, done.stderr


def test_a_writer_comes_while_the_store_is_read(tmp_path: Path) -> None:
    """A reader without locks reads pages that were added since, and no mixture of two states."""
    name = str(tmp_path / "store")
    with SqliteStore(name) as store:
        fill(store)
    (tmp_path / "store").chmod(0o555)
    writer = (
        f"import os, subprocess, sys; os.chmod({name!r}, 0o755)\n"
        "code = 'import sys; from vectors import page; from pagevec.stores import open_store\\n"
        'with open_store(sys.argv[1]) as store: store.add([page("c", 1)])\'\n'
        f"subprocess.run([sys.executable, '-c', code, {name!r}], check=True)\n"
    )
    try:
        print_both = f"{READ}\n{writer}\nprint(store.documents())"
        assert as_mere_user(name, print_both).splitlines() == [HAS_TWO_PAGES, "{'a': 2, 'c': 1}"]
    finally:
        (tmp_path / "store").chmod(0o755)


def test_a_change_under_a_reader_without_locks(tmp_path: Path) -> None:
    """What was read while the file was replaced is an error, as it may be of two states."""
    with SqliteStore(tmp_path / "store") as store:
        fill(store)
    shutil.copytree(tmp_path / "store", tmp_path / "other")
    (tmp_path / "store").chmod(0o555)
    said = as_mere_user(str(tmp_path / "store"), REPLACE)
    assert "changed while it was read: try again" in said


def test_an_older_store(tmp_path: Path) -> None:
    """A store of pagevec 0.1 that cannot be upgraded is read as it is; nothing seems written."""
    shutil.copy(FORMER / FILE, tmp_path)
    (tmp_path / FILE).chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        read = "print(store.count(), store.ledger.labels(), len(store.ledger.records()))"
        assert as_mere_user(str(tmp_path), read).strip() == "3 {} 3"
        assert len(as_mere_user(str(tmp_path), WRITE).splitlines()) == 5
    finally:
        tmp_path.chmod(0o755)


def test_the_command_line(tmp_path: Path) -> None:
    """`pagevec documents` lists a store that cannot be written."""
    with SqliteStore(tmp_path / "store") as store:
        fill(store)
    (tmp_path / "store").chmod(0o555)
    try:
        code = "from pagevec.cli import main; main(['documents', '--store', sys.argv[1]])"
        assert "2 pages  a" in as_mere_user(str(tmp_path / "store"), code)
    finally:
        (tmp_path / "store").chmod(0o755)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "kind", ["select only", "read only by default", "of one dimension", "nothing of pagevec's"]
)
def test_postgres(postgres: str, kind: str) -> None:
    """A role that may only read searches a store; whatever writes ends with a sentence."""
    url = new_database(postgres)
    with open_store(url) as store:
        fill(store)
    name = url.split("/")[3].split("?")[0]
    if kind == "read only by default":
        execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        reader = url
    else:
        role = f"reader_{name}"
        grant = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
        execute(url, f"CREATE ROLE {role} LOGIN", grant)
        reader = url.replace("user=postgres", f"user={role}")
    if kind == "nothing of pagevec's":  # that is newer than 0.1
        execute(url, "DROP TABLE pagevec_words, pagevec_whole_words")
        execute(url, "DROP TABLE pagevec_probe, pagevec_labels, pagevec_whole_pages")
        execute(url, "ALTER TABLE pagevec_documents DROP COLUMN version")
    if kind == "of one dimension":  # as stores were before 0.2
        drop = "DROP TABLE pagevec_words, pagevec_whole_words, pagevec_whole_pages"
        execute(url, drop, "ALTER TABLE pagevec_probe DROP COLUMN dim")
    expected = HAS_TWO_PAGES
    if kind == "nothing of pagevec's":
        expected = expected.replace("True", "False").replace("{'reports': '/srv/reports'}", "{}")
    assert as_mere_user(reader, READ).strip() == expected
    sentences = as_mere_user(reader, WRITE).splitlines()
    assert len(sentences) == 5
    assert all("the store in PostgreSQL" in one for one in sentences)


def test_a_database_without_a_store(postgres: str) -> None:
    """A role that may not create tables is told so, where a store would have to be made."""
    url = new_database(postgres)
    name = url.split("/")[3].split("?")[0]
    limit = f"ALTER ROLE reader_{name} SET default_transaction_read_only = on"
    execute(url, f"CREATE ROLE reader_{name} LOGIN", limit)
    with pytest.raises(StoreError, match="can be searched, but not be written to"):
        open_store(url.replace("user=postgres", f"user=reader_{name}"))
