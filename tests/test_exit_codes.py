"""Exit codes and standard output of every command: the table in docs/cli.md is made here.

python tests/test_exit_codes.py     # writes the table into docs/cli.md
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from answering import Answering, answering
from conftest import EXAMPLES, KEY, Service, pagevec
from morphik.installations import npz_release

DOCS = Path(__file__).parents[1] / "docs" / "cli.md"
START, END = "<!-- exit codes: made by tests/test_exit_codes.py -->", "<!-- end of exit codes -->"
NOBODY = "http://127.0.0.1:9"
"""An address at which nobody answers."""


@dataclass(frozen=True)
class Situation:
    """A command in a situation.

    Attributes:
        command: as it is typed; `URL` stands for a service, `NOBODY` for none.
        when: the situation, in words.
        code: its exit code.
        stdout: what standard output holds: nothing, lines, JSON.
    """

    command: str
    when: str
    code: int
    stdout: str


SITUATIONS = (
    Situation("pagevec", "nothing is asked for", 2, "nothing"),
    Situation("pagevec --help", "", 0, "lines"),
    Situation("pagevec --version", "", 0, "lines"),
    Situation("pagevec serch", "there is no such command", 2, "nothing"),
    Situation("pagevec models", "", 0, "lines"),
    Situation("pagevec cost", "", 0, "lines"),
    Situation("pagevec cost --pages-per-second x", "a value makes no sense", 2, "nothing"),
    Situation("pagevec serve --port 70000", "a value makes no sense", 2, "nothing"),
    Situation("pagevec serve --model /nowhere --offline", "no such checkpoint", 1, "nothing"),
    Situation("pagevec ingest good --url URL", "all is stored", 0, "lines"),
    Situation("pagevec ingest good --url URL --json", "all is stored", 0, "JSON"),
    Situation("pagevec ingest bad --url URL", "a document failed", 0, "lines"),
    Situation("pagevec ingest bad --url URL --strict", "a document failed", 1, "lines"),
    Situation("pagevec ingest bad --url URL --strict --json", "a document failed", 1, "JSON"),
    Situation("pagevec ingest nothing.pdf --url URL", "there is no such file", 2, "nothing"),
    Situation("pagevec ingest good --url URL --key wrong", "the key is refused", 2, "nothing"),
    Situation("pagevec ingest good --url NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec documents --store postgresql://127.0.0.1:9/x", "it is away", 3, "nothing"),
    Situation("pagevec search fares --url URL", "", 0, "lines"),
    Situation("pagevec search fares --url URL --json --maps maps", "", 0, "JSON"),
    Situation("pagevec search fares --url URL --document x", "no such document", 2, "nothing"),
    Situation("pagevec search fares --url URL --key wrong", "the key is refused", 2, "nothing"),
    Situation("pagevec search fares --url NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec search fares --url URL --store x", "there is no store", 3, "nothing"),
    Situation("pagevec mcp --store x", "there is no store", 3, "nothing"),
    Situation("pagevec mcp --port 8000", "it is an option of --http", 2, "nothing"),
    Situation("pagevec documents", "", 0, "lines"),
    Situation("pagevec documents --json", "", 0, "JSON"),
    Situation("pagevec documents --store x", "there is no store", 3, "nothing"),
    Situation("pagevec remove x", "no such document", 2, "nothing"),
    Situation("pagevec remove good/notes.txt", "", 0, "lines"),
    Situation("pagevec remove good/notes.txt --store x", "there is no store", 3, "nothing"),
    Situation("pagevec store backup pagevec-store --to copy", "", 0, "lines"),
    Situation("pagevec store backup pagevec-store --to good", "it is not empty", 2, "nothing"),
    Situation("pagevec store backup x --to other", "there is no store", 3, "nothing"),
    Situation("pagevec store backup URL --to other", "it is a service", 2, "nothing"),
    Situation("pagevec store index pagevec-store", "", 0, "lines"),
    Situation("pagevec store index x", "there is no store", 3, "nothing"),
    Situation("pagevec store compact pagevec-store", "", 0, "lines"),
    Situation("pagevec store compact pagevec-store --json", "", 0, "JSON"),
    Situation("pagevec store compact pagevec-store --measure", "all is condensed", 2, "nothing"),
    Situation("pagevec store compact x --threshold 0.995", "there is no store", 3, "nothing"),
    Situation("pagevec store compact URL --threshold 0.995", "it is a service", 2, "nothing"),
    Situation("pagevec ingest good --store URL", "the service has no store", 3, "nothing"),
    Situation("pagevec ingest good --store URL --watch", "of a service", 2, "nothing"),
    Situation("pagevec search fares --store NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec documents --store NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec embed good --url URL", "", 0, "lines"),
    Situation("pagevec embed bad --url URL", "a document failed", 0, "lines"),
    Situation("pagevec embed bad --url URL --strict", "a document failed", 1, "lines"),
    Situation("pagevec embed good --url URL --out x/y.npz", "no such folder", 2, "nothing"),
    Situation("pagevec embed good --url NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec embed good --model /nowhere", "no such checkpoint", 1, "nothing"),
    Situation("pagevec check URL", "all passed", 0, "lines"),
    Situation("pagevec check URL --key wrong", "a check failed", 1, "lines"),
    Situation("pagevec check NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec bench URL --seconds 0.1", "", 0, "lines"),
    Situation("pagevec bench URL --seconds 0.1 --json", "", 0, "JSON"),
    Situation("pagevec bench NOBODY", "nobody answers", 3, "nothing"),
    Situation("pagevec morphik configure morphik --url URL", "", 0, "lines"),
    Situation("pagevec morphik verify x", "there is no such folder", 2, "nothing"),
)
INTERRUPTED = tuple(
    Situation(f"pagevec {command} SLOW", "Ctrl-C", 130, "nothing")
    for command in (
        "ingest good --url",
        "ingest good --store",
        "embed good --url",
        "search fares --url",
        "documents --store",
        "bench",
    )
)


def shown(stdout: str) -> str:
    """Say what `stdout` is."""
    if not stdout:
        return "nothing"
    try:
        json.loads(stdout)
    except ValueError:
        return "lines"
    return "JSON"


class _Silent(Answering):
    """Is there, and answers nothing but that."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, b"{}")
        else:
            time.sleep(30)

    do_POST = do_GET


@dataclass
class Workplace:
    """A folder with documents, and the addresses to ask."""

    folder: Path
    addresses: dict[str, str]

    def words(self, situation: Situation) -> list[str]:
        words = situation.command.split()[1:]
        return [self.addresses.get(word, word) for word in words]

    def run(self, situation: Situation) -> tuple[int, str]:
        """Return the exit code, and what standard output was."""
        done = pagevec(*self.words(situation), cwd=self.folder, SERVICE_API_KEY=KEY)
        assert "Traceback" not in done.stderr, (situation, done.stderr)
        return done.returncode, shown(done.stdout)

    def interrupt(self, situation: Situation) -> tuple[int, str]:
        """Press Ctrl-C; return the same as `run`."""
        popen = subprocess.Popen(
            [sys.executable, "-m", "pagevec", *self.words(situation)],
            cwd=self.folder,
            env={**os.environ, "SERVICE_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(4)  # it waits for an answer by now
        popen.send_signal(signal.SIGINT)
        sent = time.monotonic()
        output, errors = popen.communicate(timeout=30)
        assert time.monotonic() - sent < 2.5, situation
        assert "Traceback" not in errors, (situation, errors)
        assert "interrupted" in errors, (situation, errors)
        return popen.returncode, shown(output)


@contextmanager
def workplace(service: Service, folder: Path) -> Iterator[Workplace]:
    """Make documents, a damaged one and an installation of morphik-core."""
    (folder / "good").mkdir()
    for file in ("notes.txt", "receipt.png"):
        (folder / "good" / file).write_bytes((EXAMPLES / file).read_bytes())
    (folder / "bad").mkdir()
    (folder / "bad" / "fares.txt").write_text("fares")
    (folder / "bad" / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    (folder / "morphik").mkdir()
    npz_release(folder / "morphik")
    with answering(_Silent) as silent:
        yield Workplace(folder, {"URL": service.url, "NOBODY": NOBODY, "SLOW": silent})


def table() -> str:
    """Return the table of `SITUATIONS` for the documents."""
    lines = ["| command | when | exit code | standard output |", "| --- | --- | ---: | --- |"]
    lines += [
        f"| `{one.command}` | {one.when} | {one.code} | {one.stdout} |"
        for one in (*SITUATIONS, *INTERRUPTED)
    ]
    return "\n".join(["", *lines, ""])


@pytest.mark.long
@pytest.mark.alone
def test_every_command(service: Service, tmp_path: Path) -> None:
    """Each command ends in each situation with the exit code and output that docs/cli.md says."""
    with workplace(service, tmp_path) as place:
        found = {one: place.run(one) for one in SITUATIONS}
        found |= {one: place.interrupt(one) for one in INTERRUPTED}
    expected = {one: (one.code, one.stdout) for one in found}
    assert {one.command: seen for one, seen in found.items() if seen != expected[one]} == {}


def test_the_documents_have_the_table() -> None:
    """docs/cli.md shows the table that the test above runs."""
    _, _, rest = DOCS.read_text().partition(START + "\n")
    assert rest.partition(END)[0] == table()


def main() -> None:
    """Write the table into docs/cli.md."""
    before, _, rest = DOCS.read_text().partition(START + "\n")
    DOCS.write_text(f"{before}{START}\n{table()}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
