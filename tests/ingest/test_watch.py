"""`pagevec ingest --watch` as a process: it keeps step, and nothing but a signal ends it."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from workers import small_pdf

from conftest import Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.ingest.catalogue import Catalogue
from pagevec.stores import open_store
from processes import environment

pytestmark = pytest.mark.long

ROUND = "there already"
PATIENCE = 30.0


@dataclass(frozen=True)
class Watcher:
    """A watching process: `output` is what it prints, `complaints` what it says beside that."""

    popen: "subprocess.Popen[bytes]"
    store: str
    output: Path
    complaints: Path

    def rounds(self) -> int:
        return self.output.read_text().count(ROUND)

    def names(self) -> list[str]:
        with open_store(self.store) as store:
            return [one.name for one in Catalogue(store).list()]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.popen.poll() is None, self.complaints.read_text()
            assert time.monotonic() < end, (self.output.read_text(), self.complaints.read_text())
            time.sleep(0.05)

    def wait_for_names(self, *names: str) -> None:
        self.wait_for(lambda: self.names() == list(names))

    def wait_for_complaint(self, words: str) -> None:
        self.wait_for(lambda: words in self.complaints.read_text())

    def settle(self) -> int:
        """Wait until a second passes without a round, and return how many there were."""
        rounds = -1
        while rounds != self.rounds():
            rounds = self.rounds()
            time.sleep(1.5)
        return rounds

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal and return how many seconds the end took."""
        start = time.monotonic()
        self.popen.send_signal(number)
        code = 130 if number == signal.SIGINT else 0
        assert self.popen.wait(10) == code, self.complaints.read_text()
        return time.monotonic() - start


@contextmanager
def watching(
    url: str, store: Path | str, *paths: object, folder: Path, out: Path
) -> Iterator[Watcher]:
    """Watch `paths` from the working folder `folder` until the end of the block."""
    output, complaints = out / "output", out / "complaints"
    arguments = ["ingest", *paths, "--watch", "--store", store, "--url", url, "--lease-seconds", 1]
    with output.open("wb") as stdout, complaints.open("wb") as stderr:
        popen = subprocess.Popen(
            [sys.executable, "-c", "from pagevec.cli import main; main()", *map(str, arguments)],
            env=environment(),
            cwd=folder,
            stdout=stdout,
            stderr=stderr,
        )
    watcher = Watcher(
        popen, str(folder / store) if "://" not in str(store) else str(store), output, complaints
    )
    try:
        watcher.wait_for(lambda: watcher.rounds() > 0)
        yield watcher
    finally:
        popen.kill()
        popen.wait()
    assert "Traceback" not in complaints.read_text()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("an osprey over the weir")
    (folder / "b.txt").write_text("barges on the canal")
    return folder


def test_its_own_folder(service: Service, docs: Path, tmp_path: Path) -> None:
    """With its store inside the watched folder it rests when nothing changes, and takes changes.

    Files that are no documents, hidden ones and what happens in the store make no round.
    """
    with watching(service.url, "pagevec-store", ".", folder=docs, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/a.txt", "docs/b.txt")
        before = watcher.settle()
        assert before <= 2
        (docs / ".hidden.txt").write_text("no document")
        (docs / "program.exe").write_bytes(b"MZ")
        (docs / "~$letter.docx").write_bytes(b"lock")
        (docs / "pagevec-store" / "logs" / "other.log").write_text("in the store")
        assert watcher.settle() == before

        (docs / "c.txt").write_text("a cormorant dries its wings")
        watcher.wait_for_names("docs/a.txt", "docs/b.txt", "docs/c.txt")
        watcher.settle()  # a rename in the middle of a round would be a removal and an addition
        (docs / "b.txt").rename(docs / "d.txt")
        watcher.wait_for_names("docs/a.txt", "docs/c.txt", "docs/d.txt")
        assert "renamed: docs/b.txt is now docs/d.txt" in watcher.output.read_text()
        (docs / "c.txt").unlink()
        watcher.wait_for_names("docs/a.txt", "docs/d.txt")
        assert watcher.settle() <= before + 6
        assert watcher.stop(signal.SIGINT) < 2


def test_what_happened_while_it_was_off(service: Service, docs: Path, tmp_path: Path) -> None:
    """At its start it adds and removes what changed while it was off."""
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/a.txt", "docs/b.txt")
        assert watcher.stop() < 2
    (docs / "a.txt").unlink()
    (docs / "e.txt").write_text("eels in the lock")
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/b.txt", "docs/e.txt")


def test_a_file_that_is_named_itself(service: Service, docs: Path, tmp_path: Path) -> None:
    """A file goes and comes back, and its neighbours, which were not named, are left alone."""
    one = docs / "a.txt"
    with watching(service.url, "store", one, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/a.txt")
        before = watcher.settle()
        (docs / "c.txt").write_text("a neighbour")
        assert watcher.settle() == before
        one.unlink()
        watcher.wait_for_names()
        one.write_text("the osprey is back")
        watcher.wait_for_names("docs/a.txt")


def test_bad_pages_do_not_end_it(service: Service, docs: Path, tmp_path: Path) -> None:
    """A document that cannot be read is reported, tried no more until it changes, and mended."""
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        (docs / "bad.pdf").write_bytes(b"%PDF-1.4 and no more")
        watcher.wait_for_complaint("failed: docs/bad.pdf")
        rounds = watcher.settle()
        time.sleep(1.5)
        assert watcher.rounds() == rounds
        (docs / "c.txt").write_text("a cormorant dries its wings")
        watcher.wait_for_names("docs/a.txt", "docs/b.txt", "docs/bad.pdf", "docs/c.txt")
        small_pdf(docs / "bad.pdf", 2)
        watcher.wait_for(lambda: "2 pages stored" in watcher.output.read_text())
        assert watcher.stop() < 2


def test_a_service_that_is_away(embedder: LocalEmbedder, docs: Path, tmp_path: Path) -> None:
    """While the service is away nothing is lost; when it is back the store catches up."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = make_settings(port=port)
    with ExitStack() as stack:
        with running(embedder, settings):
            watcher = stack.enter_context(
                watching(url, "store", docs, folder=tmp_path, out=tmp_path)
            )
            watcher.wait_for_names("docs/a.txt", "docs/b.txt")
        (docs / "a.txt").unlink()
        (docs / "c.txt").write_text("a cormorant dries its wings")
        time.sleep(3)
        assert watcher.popen.poll() is None
        with running(embedder, settings):
            watcher.wait_for_names("docs/b.txt", "docs/c.txt")


@pytest.mark.parametrize("how", ["moved away", "emptied"])
def test_an_unmounted_folder(how: str, service: Service, docs: Path, tmp_path: Path) -> None:
    """A folder that vanished or is empty removes nothing and is reported; back, it is watched."""
    away = tmp_path / "away"
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/a.txt", "docs/b.txt")
        if how == "moved away":
            docs.rename(away)
        else:
            away.mkdir()
            for file in docs.iterdir():
                file.rename(away / file.name)
        watcher.wait_for_complaint("is gone or empty")
        watcher.settle()
        assert watcher.names() == ["docs/a.txt", "docs/b.txt"]
        if how == "moved away":
            away.rename(docs)
        else:
            for file in away.iterdir():
                file.rename(docs / file.name)
        (docs / "c.txt").write_text("a cormorant dries its wings")
        watcher.wait_for_names("docs/a.txt", "docs/b.txt", "docs/c.txt")
        (docs / "a.txt").unlink()
        watcher.wait_for_names("docs/b.txt", "docs/c.txt")
        assert watcher.output.read_text().count("removed: ") == 1


def test_another_folder_in_its_place(service: Service, docs: Path, tmp_path: Path) -> None:
    """A folder that is replaced as a whole, as by a mount, is watched from then on."""
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/a.txt", "docs/b.txt")
        other = shutil.copytree(docs, tmp_path / "other")
        (other / "a.txt").unlink()
        docs.rename(tmp_path / "former")
        other.rename(docs)
        watcher.wait_for_names("docs/b.txt")
        (docs / "f.txt").write_text("ferries at dusk")
        watcher.wait_for_names("docs/b.txt", "docs/f.txt")


def test_other_folders_are_left_alone(service: Service, docs: Path, tmp_path: Path) -> None:
    """Documents that came from folders that are not watched stay, although they are gone."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("x", "y"):
        (other / f"{name}.txt").write_text(f"{name} marks the spot")
    with watching(service.url, "store", docs, other, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for(lambda: len(watcher.names()) == 4)
        watcher.stop()
    (other / "x.txt").unlink()
    (docs / "a.txt").unlink()
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        watcher.wait_for_names("docs/b.txt", "other/x.txt", "other/y.txt")


def test_it_ends_at_once_at_work(service: Service, docs: Path, tmp_path: Path) -> None:
    """A signal ends it within two seconds also in the middle of a long document."""
    folder = tmp_path / "in"
    folder.mkdir()
    small_pdf(folder / "long.pdf", 400)
    with watching(service.url, "store", docs, folder=tmp_path, out=tmp_path) as watcher:
        folder.rename(docs / "in")
        with open_store(watcher.store) as store:
            watcher.wait_for(lambda: store.count() > 8)
            assert watcher.stop() < 2
            assert store.count() < 402
