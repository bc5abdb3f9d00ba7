"""What each installation can do: every command has its help, and its first error is a sentence."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import EXAMPLES, KEY, Service
from pdf_files import one_page, words

ROOT = Path(__file__).parents[1]
NOBODY = "http://127.0.0.1:9"
_MOST_STARTS = 40  # of a bare interpreter, for any help: 0.3 s of a processor where it takes 8 ms

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Install:
    """An environment of its own with the wheel and one extra."""

    extra: str
    folder: Path

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run `pagevec` as its user does, in a folder without a store."""
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("PAGEVEC", "SERVICE_"))}
        clean.pop("PYTHONPATH", None)
        return subprocess.run(
            [self.folder / "bin" / "pagevec", *arguments],
            env={**clean, **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def help_starts(self, *command: str) -> float:
        """Return the processor time of a command's help, in starts of a bare interpreter.

        Of three if it is long: a machine that does other things makes both longer.
        """
        starts, bare = [float("inf")], [self.folder / "bin" / "python", "-c", "pass"]
        while min(starts) > _MOST_STARTS and len(starts) <= 3:
            done, seconds = _timed(lambda: self.run(*command, "--help"))
            assert (done.returncode, done.stderr) == (0, ""), command
            assert "Usage: pagevec" in done.stdout
            least = min(_timed(lambda: subprocess.run(bare, check=True))[1] for _ in range(3))
            starts.append(seconds / least)
        return min(starts)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `run` returns, and the processor time of the process that it ran."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module", params=["", "pdf", "morphik", "modal", "postgres"])
def install(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Install]:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    wanted = f"{wheel}[{request.param}]" if request.param else str(wheel)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "--quiet", "install"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wanted], check=True, capture_output=True)
    yield Install(request.param, folder)


def commands(install: Install) -> list[list[str]]:
    """Return all commands, as the completion of a shell knows them."""
    done = install.run(
        _PAGEVEC_COMPLETE="bash_complete", COMP_WORDS="pagevec ", COMP_CWORD="1", COMP_TYPE="9"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [[line.partition(",")[2]] for line in done.stdout.splitlines()]


def test_help(install: Install) -> None:
    """Each command has its help at once, and so has `pagevec`; the version and completion work."""
    assert install.run("--version").stdout == install.run("-V").stdout
    assert install.run().stderr.startswith("Usage: pagevec") and install.run("-h").returncode == 0
    module = [install.folder / "bin" / "python", "-m", "pagevec", "--version"]
    assert b"pagevec" in subprocess.run(module, capture_output=True, check=True).stdout
    known = commands(install)
    assert len(known) >= 11
    known += [["morphik", "configure"], ["morphik", "verify"], ["store", "backup"]]
    slow = {
        tuple(one): starts
        for one in [[], *known]
        if (starts := install.help_starts(*one)) > _MOST_STARTS
    }
    assert slow == {}


def test_first_errors(install: Install) -> None:
    """What a newcomer does wrong first is a sentence in each command, never a traceback."""
    notes = str(EXAMPLES / "notes.txt")
    (install.folder / "morphik.toml").write_text("[morphik]\n")
    attempts = (
        ("serve", 2, "which is not installed here: `pip install 'pagevec[serve]'`"),
        (f"embed {notes}", 2, "which is not installed here: `pip install 'pagevec[serve]'`"),
        (f"embed {notes} --url {NOBODY}", 3, "is it running?"),
        (f"ingest {notes} --url {NOBODY}", 3, "is it running?"),
        (f"ingest /nowhere --url {NOBODY}", 2, "/nowhere"),
        ("search words", 3, "there is no store at ./pagevec-store"),
        ("documents", 3, "there is no store at ./pagevec-store"),
        ("remove x", 3, "there is no store at ./pagevec-store"),
        ("documents --store postgresql://127.0.0.1:9/x", 3, "PostgreSQL"),
        ("mcp", 2, "which is not installed here: `pip install 'pagevec[mcp]'`"),
        ("store backup x --to y", 3, "there is no store at x"),
        ("store backup postgresql://a/x --to y", 2, "pg_dump"),
        ("check", 2, "there is no key"),
        (f"check {NOBODY} --key a", 3, "is it running?"),
        (f"bench {NOBODY} --key a", 3, "is it running?"),
        ("morphik configure .", 2, "--url"),
        ("morphik configure /nowhere --url http://a", 2, "'/nowhere' does not exist"),
        ("cost --pages-per-second x", 2, "expected pages/s"),
        ("models x", 2, "unexpected extra argument"),
    )
    for command, code, said in attempts:
        done = install.run(*command.split())
        assert (done.returncode, said in done.stderr) == (code, True), (command, done.stderr)
        assert "Traceback" not in done.stderr


def test_documents_that_need_more(install: Install, service: Service) -> None:
    """A PDF and a picture, where their extra is missing, are failures that name it."""
    folder = install.folder / "documents"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(one_page(words("fares")))
    (folder / "b.png").write_bytes((EXAMPLES / "receipt.png").read_bytes())
    (folder / "c.txt").write_text("fares")
    address = ("--url", service.url, "--key", KEY)
    for command in ("embed", "ingest"):
        done = install.run(command, "documents", *address)
        assert done.returncode == 0, done.stderr
        missing = install.extra not in ("pdf",)
        assert ("a.pdf: " in done.stderr and "pagevec[pdf]" in done.stderr) == missing
        assert "Traceback" not in done.stderr
    found = install.run("search", "fares", *address)
    assert found.returncode == 0, found.stderr
    assert "documents/c.txt" in found.stdout
