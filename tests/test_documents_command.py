"""`pagevec ingest`, `documents`, `remove` and `search`: what they print, and what they refuse."""

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from conftest import KEY, Service, pagevec
from pagevec.client import Client
from pagevec.commands.search import _read_condition
from pagevec.errors import InvalidRequest
from pagevec.search.index import Index
from pagevec.search.results import Hit
from pagevec.stores import open_store
from postgres_server import new_database
from stores import morphik_core
from vectors import page, unit_vectors


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    for name, text in {"a": "an osprey", "b": "barges", "sub/c": "a cormorant"}.items():
        (folder / f"{name}.txt").write_text(f"{text} over the weir")
    return folder


class Shell:
    """Commands with one store and one service."""

    def __init__(self, service: Service, store_name: str) -> None:
        self.store = store_name
        self._url = service.url

    def run(self, command: str, *arguments: object, code: int = 0) -> tuple[str, str]:
        """Run a command, check its exit code, and return its output and its complaints."""
        done = pagevec(command, *arguments, *self._options(command), SERVICE_API_KEY=KEY)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        return done.stdout, done.stderr

    def json(self, command: str, *arguments: object) -> Any:
        return json.loads(self.run(command, *arguments, "--json")[0])

    def search(self, documents: Sequence[object] = (), conditions: Sequence[str] = ()) -> list[Hit]:
        """Search as the command does, without a process of its own."""
        metadata = dict(map(_read_condition, conditions))
        with Client(self._url, KEY) as client, Index(self.store, client) as index:
            return index.search("weir", documents=list(map(str, documents)), metadata=metadata)

    def _options(self, command: str) -> list[str]:
        url = ["--url", self._url] if command in ("embed", "ingest", "search") else []
        return url if command == "embed" else ["--store", self.store, *url]

    def names(self) -> list[str]:
        return [one["name"] for one in self.json("documents")]


@pytest.fixture
def shell(service: Service, store_name: str) -> Shell:
    return Shell(service, store_name)


def test_documents(shell: Shell, docs: Path) -> None:
    """Each document has a line, or an entry in JSON, with its pages and what is wrong with it."""
    (docs / "bad.pdf").write_bytes(b"%PDF-1.4 and no more")
    shell.run("ingest", docs)
    (docs / "b.txt").unlink()
    (docs / "a.txt").write_bytes(b"\0\1\2" * 500)
    shell.run("ingest", docs)
    listed, _ = shell.run("documents")
    lines = [" ".join(line.split()) for line in listed.splitlines()]
    assert lines[0].startswith("1 page docs/a.txt (") and "a.txt: the file is binary" in lines[0]
    assert lines[1] == "1 page docs/b.txt (its file is gone)"
    assert lines[2].startswith("0 pages docs/bad.pdf (") and "bad.pdf" in lines[2]
    assert lines[3:] == ["1 page docs/sub/c.txt", "4 documents"]
    entries = {one["name"]: one for one in shell.json("documents")}
    assert entries["docs/sub/c.txt"] == {
        "name": "docs/sub/c.txt",
        "stored": 1,
        "pages": 1,
        "complete": True,
        "error": None,
        "path": str(docs / "sub" / "c.txt"),
        "is_ours": True,
        "address": None,
    }
    assert entries["docs/bad.pdf"]["stored"] == 0
    found, _ = shell.run("search", "an osprey over the weir", "-k", 1)
    assert "docs/a.txt, page 1  [an, osprey]  (" in found and "binary" in found


def test_remove(shell: Shell, docs: Path) -> None:
    """Documents are removed by name and by path; of several, none goes if one is unknown."""
    shell.run("ingest", docs)
    _, said = shell.run("remove", "docs/a.txt", "docs/nothing.txt", code=2)
    assert "no document 'docs/nothing.txt'" in said
    assert len(shell.names()) == 3
    printed, _ = shell.run("remove", "docs/a.txt", docs / "sub" / "c.txt", docs / "a.txt")
    assert printed == "removed: docs/a.txt (1 page)\nremoved: docs/sub/c.txt (1 page)\n"
    assert shell.names() == ["docs/b.txt"]
    assert (docs / "a.txt").exists()


def test_documents_of_other_programs(shell: Shell, docs: Path) -> None:
    """They are listed as such, searched, and neither removed nor pruned."""
    with open_store(shell.store) as store:
        store.add([page("theirs", 1), page("theirs", 2)])
    shell.run("ingest", docs)
    assert "2 pages  theirs  (morphik-core's)" in shell.run("documents")[0]
    assert [one["is_ours"] for one in shell.json("documents")] == [True, True, True, False]
    _, said = shell.run("remove", "docs/a.txt", "theirs", code=2)
    assert "'theirs' was not ingested by pagevec" in said
    (docs / "a.txt").unlink()
    printed, _ = shell.run("ingest", docs, "--prune")
    assert "removed: docs/a.txt" in printed
    assert shell.names() == ["docs/b.txt", "docs/sub/c.txt", "theirs"]
    hits = shell.json("search", "anything", "--document", "theirs")
    assert {hit["page"] for hit in hits} == {1, 2}


def test_prune(shell: Shell, docs: Path) -> None:
    """Gone files are removed, a renamed one is renamed, an emptied folder loses nothing."""
    shell.run("ingest", docs)
    (docs / "a.txt").unlink()
    (docs / "b.txt").rename(docs / "sub" / "d.txt")
    assert shell.run("ingest", docs)[0].splitlines() == [
        "0 pages stored; 1 document was there already",
        "renamed: docs/b.txt is now docs/sub/d.txt",
    ]
    entry = shell.json("ingest", docs, "--prune")
    assert (entry["removed"], entry["doubtful"], entry["pages_stored"]) == (["docs/a.txt"], [], 0)
    for file in ("sub/c.txt", "sub/d.txt"):
        (docs / file).unlink()
    (docs / "sub").rmdir()
    printed, said = shell.run("ingest", docs, "--prune")
    assert "removed" not in printed
    assert f"{docs} is gone or empty" in said and "2 documents whose files are missing" in said
    assert shell.names() == ["docs/sub/c.txt", "docs/sub/d.txt"]


def test_json_and_strict(shell: Shell, docs: Path) -> None:
    """With --json nothing else is on the standard output; --strict shows a failure in the code."""
    (docs / "bad.pdf").write_bytes(b"%PDF-1.4 and no more")
    (docs / "x.exe").write_bytes(b"MZ")
    printed, _ = shell.run("ingest", docs, "--json", "--strict", code=1)
    content = json.loads(printed)
    assert content["pages_stored"] == 3
    assert content["passed_over"] == ["passed over: 1 file of other types (.exe)"]
    by_name = {one["document"]: one for one in content["documents"]}
    assert "bad.pdf" in by_name["docs/bad.pdf"]["error"]
    assert by_name["docs/a.txt"]["stored"] == 1
    assert json.loads(shell.run("ingest", docs, "--json")[0])["pages_stored"] == 0
    (docs / "bad.pdf").unlink()
    shell.run("ingest", docs, "--strict")


def test_passwords(shell: Shell, docs: Path, tmp_path: Path) -> None:
    """An encrypted PDF is read with a password of the command line or of a file, else it fails."""
    encryption = StandardEncryption("open sesame", "owner", strength=128)
    canvas = Canvas(str(docs / "secret.pdf"), pagesize=(200, 100), encrypt=encryption)
    canvas.drawString(20, 50, "the heron sleeps")
    canvas.save()
    _, said = shell.run("ingest", docs, "--password", "wrong", code=0)
    assert "failed: docs/secret.pdf" in said and "--password" in said
    keys = tmp_path / "keys"
    keys.write_text("another\n\nopen sesame\n")
    assert "1 page stored" in shell.run("ingest", docs, "--password-file", keys)[0]
    assert "secret.pdf" in shell.run("search", "heron", "--document", "docs/secret.pdf")[0]
    shell.run("remove", "docs/secret.pdf")
    command = ("ingest", docs, "--password", "another", "--password", "open sesame")
    assert "1 page stored" in shell.run(*command)[0]
    out = ("--out", tmp_path / "vectors.npz")
    embedded, _ = shell.run("embed", docs / "secret.pdf", *out, "--password-file", keys)
    assert embedded.startswith("1 page")
    keys.write_bytes(b"\xff\xfe\xff")
    assert "--password-file" in shell.run("ingest", docs, "--password-file", keys, code=2)[1]


def test_a_store_that_is_not_there(shell: Shell, tmp_path: Path) -> None:
    """Looking for a store that is not there is an error, and makes none."""
    if "://" not in shell.store:
        shell.store = str(tmp_path / "typing-error")
    for command in (("search", "words"), ("documents",), ("remove", "a")):
        assert "there is no store" in shell.run(*command, code=3)[1]
    if "://" in shell.store:
        with psycopg.connect(shell.store) as connection:
            [(count,)] = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            )
        assert count == 0
    else:
        assert not (tmp_path / "typing-error").exists()


def test_a_store_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """A search asks for its vectors ahead, and waits for no service if there is no store."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        done = pagevec("search", "words", "--store", tmp_path / "none", "--url", url)
    assert (done.returncode, "there is no store" in done.stderr) == (3, True), done.stderr
    assert time.monotonic() - started < 30  # the service would be waited for twice as long


def test_filters_by_document(shell: Shell, docs: Path) -> None:
    """--document takes names and paths of documents and of folders, and refuses unknown ones."""
    shell.run("ingest", docs)

    def found(*documents: object) -> set[str]:
        return {hit.document for hit in shell.search(documents)}

    everything = {"docs/a.txt", "docs/b.txt", "docs/sub/c.txt"}
    assert found("docs/a.txt") == found(docs / "a.txt") == {"docs/a.txt"}
    assert found("docs") == found(docs) == found(f"{docs}/") == everything
    assert found("docs/sub") == found(docs / "sub") == {"docs/sub/c.txt"}
    assert found("docs/sub", "docs/a.txt") == {"docs/a.txt", "docs/sub/c.txt"}
    for unknown in ("doc", "x", docs.parent / "elsewhere", ""):
        with pytest.raises(InvalidRequest, match="the store has no document"):
            shell.search([unknown])
    hits = shell.json("search", "weir", "--document", "docs/sub", "--document", docs / "b.txt")
    assert {hit["document"] for hit in hits} == {"docs/b.txt", "docs/sub/c.txt"}
    _, said = shell.run("search", "weir", "--document", "docs/x.txt", code=2)
    assert "no document 'docs/x.txt'" in said


def test_filters_by_metadata(shell: Shell) -> None:
    """--where understands numbers, true, false, null and text, and knows what pages have."""
    values = {"n": 3, "x": 2.5, "flag": True, "nothing": None, "text": "3", "word": "true story"}
    with open_store(shell.store) as store:
        store.add([page("d", 1, metadata=values), page("d", 2, metadata={"n": 4, "flag": False})])

    def found(*conditions: str) -> list[int]:
        return sorted(hit.page for hit in shell.search(conditions=conditions))

    for condition in ("n=3", "x=2.5", "flag=true", "nothing=null", 'text="3"', "word=true story"):
        assert found(condition) == [1], condition
    assert found("flag=false") == found("flag=false", "n=4") == [2]
    assert found("n=5") == found("n=3", "flag=false") == found("text=3") == []
    [hit] = shell.json("search", "words", "--where", "n=3", "--where", "flag=true")
    assert hit["page"] == 1
    _, said = shell.run("search", "words", "--where", "colour=red", code=2)
    assert (
        "no page has metadata named 'colour' (there are: flag, n, nothing, text, word, x)" in said
    )
    assert "expected NAME=VALUE" in shell.run("search", "words", "--where", "n", code=2)[1]
    with pytest.raises(click.BadParameter, match="expected NAME=VALUE"):
        shell.search(conditions=["=3"])


def test_metadata_of_morphik_core(service: Service, postgres: str) -> None:
    """Numbers and booleans in the rows of morphik-core are matched, in both of its spellings."""
    shell = Shell(service, new_database(postgres))
    open_store(shell.store).close()
    rows = ['{"is_image": true, "page_number": 3}', "{'is_image': True, 'page_number': 4}"]
    with psycopg.connect(shell.store, autocommit=True) as connection:
        for chunk, metadata in enumerate(rows):
            morphik_core.insert(connection, "6f1c", chunk, unit_vectors(3, chunk), metadata)
    assert len(shell.search(conditions=["is_image=true"])) == 2
    assert [hit.page for hit in shell.search(conditions=["page_number=4"])] == [2]
