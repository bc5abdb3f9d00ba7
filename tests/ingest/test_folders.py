"""Folders as they are: what is found, what is passed over and counted, and odd names."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import KEY, Service, pagevec
from pagevec.errors import InvalidRequest
from pagevec.ingest.names import name_unstored
from pagevec.ingest.sources import find_documents
from pagevec.stores import open_store

NOT_UTF8 = os.fsdecode(b"caf\xe9.txt")


def found_in(folder: Path) -> list[str]:
    found = find_documents([folder])
    return [document.name for document in name_unstored(found)]


def test_everything_is_found_or_counted(tmp_path: Path) -> None:
    """Each file of a folder is a document or is counted under the reason why it is none."""
    folder, outside = tmp_path / "in", tmp_path / "outside"
    for path in (folder / "sub" / "deep", folder / ".git", folder / "store", outside):
        path.mkdir(parents=True)
    documents = ["a.txt", "UPPER.PDF", "sub/deep/b.jpeg", "-dash.docx", "sub/inner.txt"]
    others = ["x.exe", "y.exe", "z.zip", "Makefile"]
    hidden = [".env", ".git/config.txt", "~$letter.docx", ".~lock.sheet.ods#"]
    for name in (*documents, *others, *hidden, "store/pages.sqlite3", "store/thumb.png"):
        (folder / name).write_text("words")
    (outside / "far.txt").write_text("words")
    (folder / "inner-link.txt").symlink_to(folder / "a.txt")
    (folder / "outer-link.txt").symlink_to(outside / "far.txt")
    (folder / "dangling.txt").symlink_to(folder / "nothing.txt")
    (folder / "linked").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    (folder / "folder.pdf").mkdir()

    assert sorted(found_in(folder)) == sorted(f"in/{name}" for name in documents)
    assert set(find_documents([folder]).describe()) == {
        "passed over: 2 files of other types (.exe)",
        "passed over: 1 file of other types (.zip)",
        "passed over: 1 file of other types (no suffix)",
        "passed over: 1 file named twice",
        "passed over: 1 hidden file",
        "passed over: 1 hidden folder",
        "passed over: 2 lock files of Office programs",
        "passed over: 1 link leading out of the folder",
        "passed over: 2 links to folders",
        "passed over: 2 names of what is no file",
        "passed over: 1 store of pagevec",
    }


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links of all kinds to what is outside of it."""
    folder, outside = tmp_path / "in", tmp_path / "outside"
    for path in (folder / "sub", outside / "deep"):
        path.mkdir(parents=True)
    for file in (folder / "own.txt", outside / "far.txt", outside / "deep" / "farther.txt"):
        file.write_text(f"words of {file.name}")
    (folder / "inner.txt").symlink_to(folder / "own.txt")
    (folder / "sub" / "far-link.txt").symlink_to(outside / "far.txt")
    (folder / "a-link").symlink_to(outside / "deep")
    (folder / "loop").symlink_to(folder)
    (outside / "deep" / "back").symlink_to(folder)
    (outside / "deep" / "up").symlink_to(outside)
    return folder


def test_links_that_lead_out_are_named(linked: Path) -> None:
    """Without being asked nothing outside is found, and each link that leads there is named."""
    found = find_documents([linked])
    assert [one.below.as_posix() for one in found.documents] == ["inner.txt"]
    assert sorted(found.describe_links()) == [
        f"not followed, as it leads out of its folder: {linked / 'a-link'}",
        f"not followed, as it leads out of its folder: {linked / 'sub' / 'far-link.txt'}",
    ]


def test_links_are_followed_when_asked(linked: Path) -> None:
    """What links lead to is found, each file once, and loops of links end."""
    found = find_documents([linked], follow_links=True)
    contents = sorted(one.path.read_text() for one in found.documents)
    assert contents == ["words of far.txt", "words of farther.txt", "words of own.txt"]
    assert found.describe_links() == []
    assert all(one.folder == linked.resolve() for one in found.documents)


def test_a_link_that_is_named_itself(linked: Path) -> None:
    """A link to a file or to a folder that is named itself is followed without being asked."""
    links = [linked / "sub" / "far-link.txt", linked / "a-link"]
    found = find_documents(links)
    assert [one.path.name for one in found.documents] == ["far-link.txt", "farther.txt"]


def test_links_on_the_command_line(service: Service, linked: Path, tmp_path: Path) -> None:
    """`ingest` names what it does not follow, and follows it with an option; `prune` waits.

    Documents behind a link stay in the store while the disk that it leads to is away.
    """
    arguments = ["ingest", linked, "--store", tmp_path / "store", "--url", service.url]
    done = pagevec(*arguments, SERVICE_API_KEY=KEY)
    assert f"not followed, as it leads out of its folder: {linked / 'a-link'}" in done.stderr
    names = {"in/inner.txt", "in/a-link/farther.txt", "in/sub/far-link.txt"}
    with open_store(str(tmp_path / "store")) as store:
        assert set(store.documents()) == {"in/inner.txt"}
        done = pagevec(*arguments, "--follow-links", SERVICE_API_KEY=KEY)
        assert (done.returncode, "not followed" in done.stderr) == (0, False)
        followed = set(store.documents())
        assert followed == names
        shutil.rmtree(tmp_path / "outside")
        done = pagevec(*arguments, "--follow-links", "--prune", SERVICE_API_KEY=KEY)
        behind = {name for name in followed if name.startswith("in/a-link/")}
        assert behind and behind <= set(store.documents()), done.stderr


def test_a_hidden_folder_that_is_named(tmp_path: Path) -> None:
    """A hidden folder is read if it is named, or is above the one that is."""
    folder = tmp_path / ".hidden" / "docs"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("words")
    assert found_in(folder) == ["docs/a.txt"]
    assert found_in(folder.parent) == [".hidden/docs/a.txt"]


def test_wrong_paths_stop_before_the_first_page(service: Service, tmp_path: Path) -> None:
    """All wrong paths among the arguments are named, and nothing is embedded or created."""
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.exe").write_text("words")
    arguments = ["ingest", tmp_path / "a.txt", tmp_path / "no.pdf", tmp_path / "b.exe"]
    done = pagevec(*arguments, "--store", tmp_path / "s", "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 2
    assert f"no such file or folder: {tmp_path / 'no.pdf'}" in done.stderr
    assert f"unsupported file type '.exe': {tmp_path / 'b.exe'}" in done.stderr
    assert not (tmp_path / "s").exists()


def test_names_that_are_odd(service: Service, store_name: str, tmp_path: Path) -> None:
    """Names that are not UTF-8, have line ends in them or are very long are stored and listed.

    A failure of a file whose name is not UTF-8 is reported and noted, too; a name that a store
    does not take costs that document alone.
    """
    folder = tmp_path / os.fsdecode(b"d\xe9p\xf4t")
    folder.mkdir()
    chance = random.Random(1)  # noqa: S311 - repeatable: names that cannot be compressed
    long = "x" * 240 + ".txt"
    for name in (NOT_UTF8, "two\nlines.txt", long, "-dash.txt", "%41#?.txt", "\x1b[31mred.txt"):
        (folder / name).write_text(f"words of {name.encode(errors='replace')!r}")
    (folder / os.fsdecode(b"bad\xe9.pdf")).write_bytes(b"%PDF-1.4 and no more")
    deep = folder.joinpath(*(chance.randbytes(100).hex() for _ in range(16)))
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("deep words")
    takes_deep = "://" not in store_name  # an index of PostgreSQL takes 2,700 bytes
    options = ("--store", store_name, "--url", service.url)
    for stored in (6 + takes_deep, 0):
        done = pagevec("ingest", folder, *options, SERVICE_API_KEY=KEY)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert f"{stored} pages stored" in done.stdout
        assert ("/deep.txt: " in done.stderr) != takes_deep
        assert r"failed: d\xe9p\xf4t/bad\xe9.pdf: " in done.stderr
    shown = pagevec("documents", "--store", store_name)
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert sum("xe9p" in line for line in lines) == len(lines) - 1
    assert any(r"two\nlines.txt" in line for line in lines)
    assert "\x1b" not in shown.stdout
    listed = pagevec("documents", "--store", store_name, "--json")
    names = {one["name"] for one in json.loads(listed.stdout)}
    label = r"d\xe9p\xf4t"
    assert {f"{label}/caf\\xe9.txt", f"{label}/two\nlines.txt", f"{label}/{long}"} <= names
    as_json = pagevec("ingest", folder, *options, "--json", SERVICE_API_KEY=KEY)
    assert json.loads(as_json.stdout)["pages_stored"] == 0

    (folder / NOT_UTF8).unlink()
    pruned = pagevec("ingest", folder, *options, "--prune", SERVICE_API_KEY=KEY)
    assert r"removed: d\xe9p\xf4t/caf\xe9.txt" in pruned.stdout
    assert pruned.stdout.count("removed:") == 1
    with open_store(store_name) as store:
        assert len(store.ledger.records()) == len(names) - 1


def as_nobody() -> list[str]:
    """Return the start of a command that runs another one without root's power over files."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and there is no setpriv")
    powers = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", "--"]


def test_folders_that_cannot_be_read(service: Service, tmp_path: Path) -> None:
    """What cannot be read is named, everything else is stored, and nothing is pruned for it."""
    folder = tmp_path / "in"
    for name in ("open", "closed", "listed"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.txt").write_text(f"words in the {name} folder")
    (folder / "locked.txt").write_text("locked words")

    def ingest(*options: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-c", "from pagevec.cli import main; main()"]
        arguments = ["ingest", folder, "--store", tmp_path / "s", "--url", service.url, *options]
        return subprocess.run(
            [*as_nobody(), *program, *map(str, arguments)],
            env={**os.environ, "SERVICE_API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert "4 pages stored" in ingest().stdout
    modes = {"closed": 0o000, "listed": 0o444, "locked.txt": 0o000}
    for name, mode in modes.items():
        (folder / name).chmod(mode)
    try:
        done = ingest("--prune")
    finally:
        for name in modes:
            (folder / name).chmod(0o755)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert f"cannot be read: {folder / 'closed'}" in done.stderr
    assert f"cannot be read: {folder / 'listed' / 'a.txt'}" in done.stderr
    assert "failed: in/locked.txt" in done.stderr
    assert "removed" not in done.stdout
    with open_store(str(tmp_path / "s")) as store:
        assert store.count() == 4


def test_a_path_below_a_closed_folder(tmp_path: Path) -> None:
    """A path that cannot even be looked at is an error that names it."""
    (tmp_path / "file.txt").write_text("words")
    with pytest.raises(InvalidRequest, match=r"no such file or folder: .*file\.txt/below\.pdf"):
        find_documents([tmp_path / "file.txt" / "below.pdf"])
