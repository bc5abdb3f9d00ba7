"""Office files, web pages and books through LibreOffice, which reaches nothing but the document."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_pdf import picture

import office_files
from conftest import Service
from image_files import encode
from office_files import docx, epub, odp, ods, odt, odt_with_macro, pack, xlsx
from pagevec.client import Client
from pagevec.errors import DocumentError
from pagevec.ingest import boundary, office
from pagevec.ingest.boundary import open_document
from pagevec.ingest.epub import epub_to_html
from pagevec.ingest.page import ReadLimits, ReadOptions
from pagevec.search.index import Index

pytestmark = pytest.mark.long

needs_office = pytest.mark.skipif(
    shutil.which("soffice") is None, reason="LibreOffice (soffice) is not installed here"
)

_RTF = rb"{\rtf1 ALBATROSS \'c4pfel}"


def read_texts(file: Path) -> list[str]:
    with open_document(file) as pages:
        return [pages.make(number).text or "" for number in range(1, pages.count + 1)]


KINDS = {
    "a.docx": (docx("ALBATROSS"), "ALBATROSS"),
    "a.xlsx": (xlsx("ALBATROSS"), "ALBATROSS"),
    "a.odt": (odt("ALBATROSS"), "ALBATROSS"),
    "a.ods": (ods("ALBATROSS"), "ALBATROSS"),
    "a.odp": (odp("ALBATROSS"), "ALBATROSS"),
    "a.rtf": (_RTF, "Äpfel"),
    "a.epub": (epub("ALBATROSS", "PENGUIN"), "ALBATROSS"),
    "a.html": (b"<h1>ALBATROSS</h1><p>F\xc3\xa4hre</p>", "ALBATROSS Fähre"),
    "latin.html": (b"<meta charset=iso-8859-1><p>F\xe4hre", "Fähre"),
    "a.csv": ("Fähre;東京\nÖl;3\n".encode(), "Fähre 東京 Öl 3"),
    "latin.csv": ("Fähre;Äpfel\nStraße;Züge für alle\n".encode("cp1252"), "Straße"),
    "-dash.docx": (docx("ALBATROSS"), "ALBATROSS"),
    "a %20 b#c 'q' \"d\" 東京.odt": (odt("ALBATROSS"), "ALBATROSS"),
}


@needs_office
@pytest.mark.parametrize("name", KINDS)
def test_kinds(tmp_path: Path, name: str) -> None:
    """Each kind of file gives pages with its words, in its encoding, whatever the file's name."""
    content, expected = KINDS[name]
    (tmp_path / name).write_bytes(content)
    text = " ".join(" ".join(read_texts(tmp_path / name)).split())
    for word in expected.split():
        assert word in text


@needs_office
def test_slides_of_powerpoint(tmp_path: Path) -> None:
    """A .pptx, as LibreOffice itself writes it, is read."""
    (tmp_path / "a.odp").write_bytes(odp("ALBATROSS"))
    profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    command = ["soffice", profile, "--headless", "--convert-to", "pptx", "--outdir", tmp_path]
    subprocess.run([*command, tmp_path / "a.odp"], check=True, capture_output=True)
    assert "ALBATROSS" in read_texts(tmp_path / "a.pptx")[0]


def test_a_book_with_pictures(tmp_path: Path) -> None:
    """A book's pictures are put into its chapters; what is not in the book is left out."""
    book = tmp_path / "a.epub"
    parts = {"OEBPS/text/pictures/a b.png": encode(Image.new("L", (4, 4)), "PNG").decode("latin-1")}
    chapter = '<img alt="x" src="pictures/a%20b.png"/><img src="http://127.0.0.1/x.png"/>'
    book.write_bytes(epub(chapter, "second &amp; last"))
    with office_files.zipfile.ZipFile(book, "a") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.encode("latin-1"))
    html = epub_to_html(book)
    assert "data:image/png;base64,iVBOR" in html
    assert "127.0.0.1" not in html
    assert html.index("Chapter 0") < html.index("Chapter 1") < html.index("second &amp; last")


DAMAGED = {
    "cut.docx": docx("ALBATROSS")[:300],
    "not.docx": b"hello",
    "cut.odt": odt("ALBATROSS")[:300],
    "bomb.epub": pack({"META-INF/container.xml": " " * (65 << 20)}),
    "bomb.docx": pack({"word/document.xml": " " * (65 << 20)}),
    "not.epub": pack({"a": "b"}),
}


@pytest.mark.parametrize("name", DAMAGED)
@needs_office
def test_damaged_files(tmp_path: Path, name: str) -> None:
    """A file that is cut, or of another kind than its name says, is refused by name."""
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(DocumentError, match=rf"{name}: .*(damaged|more than|unpacked)"):
        read_texts(tmp_path / name)


def test_passwords(tmp_path: Path) -> None:
    """Files with a password are refused with what to do."""
    names = "EncryptionInfo EncryptedPackage".encode("utf-16-le")
    manifest = "<manifest:manifest><manifest:encryption-data/></manifest:manifest>"
    (tmp_path / "a.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1016) + names)
    (tmp_path / "a.odt").write_bytes(pack({"META-INF/manifest.xml": manifest}))
    for name in ("a.docx", "a.odt"):
        with pytest.raises(DocumentError, match=rf"{name}: the file needs a password"):
            read_texts(tmp_path / name)


@needs_office
def test_its_own_words(tmp_path: Path) -> None:
    """What LibreOffice says of a file that it cannot load is in the error."""
    (tmp_path / "other.docx").write_bytes(pack({"a.txt": "not a document"}))
    with pytest.raises(DocumentError, match=r"other\.docx: .*source file could not be loaded"):
        read_texts(tmp_path / "other.docx")


@dataclass
class Outside:
    """What documents link to: a server that counts its callers, and marked files."""

    folder: Path
    port: int = 0
    callers: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "marked.txt").write_text("WALRUS")
    (folder / "marked.html").write_text("<p>WALRUS</p>")
    (folder / "marked.odt").write_bytes(odt("WALRUS"))
    (folder / "marked.png").write_bytes(encode(Image.new("L", (300, 300), 0), "PNG"))
    found = Outside(folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found.port = server.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                found.callers.append(str(address))
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield found


def write_linking(folder: Path, target: Outside) -> None:
    """Documents of four kinds that link to what is outside."""
    folder.mkdir()
    picture, text = (target.folder / "marked.png").as_uri(), target.folder / "marked.txt"
    links = "".join(
        f'<img src="{base}/marked.png"><iframe src="{base}/marked.html"></iframe>'
        f'<link rel="stylesheet" href="{base}/a.css"><object data="{base}/marked.odt"></object>'
        for base in (target.url, target.folder.as_uri())
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="300" height="300"><style>@import url({target.url}/a.css);</style>'
        f'<image href="{target.url}/a.png" width="300" height="300"/>'
        f'<image xlink:href="{picture}" width="300" height="300"/>'
        f'<image href="{target.folder}/marked.png" width="300" height="300"/></svg>'
    )
    files = {
        "a.html": f"<html><body><p>HARBOUR</p>{links}</body></html>".encode(),
        "a.odt": odt("HARBOUR", picture=picture, section=(target.folder / "marked.odt").as_uri()),
        "b.odt": odt("HARBOUR", picture=f"{target.url}/a.png", section=f"{target.url}/a.odt"),
        "a.docx": docx("HARBOUR", picture=picture, included=str(text)),
        "b.docx": docx("HARBOUR", picture=f"{target.url}/a.png", included=f"{target.url}/a.txt"),
        "a.xlsx": xlsx("HARBOUR", formula=f"_xlfn.WEBSERVICE(&quot;{target.url}/a&quot;)"),
        "a.svg": svg.encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


def assert_nothing_came(folder: Path, target: Outside) -> None:
    """No caller, no word of the marked file, no black picture."""
    for file in sorted(folder.iterdir()):
        with open_document(file) as pages:
            for number in range(1, pages.count + 1):
                page = pages.make(number)
                assert "WALRUS" not in (page.text or ""), file.name
                assert (np.asarray(picture(page)) < 64).mean() < 0.01, file.name
    assert target.callers == []


@needs_office
def test_nothing_that_a_document_links_to(tmp_path: Path, outside: Outside) -> None:
    """Links to a server and to the user's files, of every kind of document, are not followed."""
    pytest.importorskip("resvg_py")
    write_linking(tmp_path / "in", outside)
    assert_nothing_came(tmp_path / "in", outside)


@needs_office
def test_nothing_linked_is_found(service: Service, tmp_path: Path, outside: Outside) -> None:
    """A document that includes a marked file scores for its word as one that does not."""
    (tmp_path / "in").mkdir()
    section = (outside.folder / "marked.odt").as_uri()
    (tmp_path / "in" / "linking.odt").write_bytes(odt("HARBOUR", section=section))
    (tmp_path / "in" / "missing.odt").write_bytes(odt("HARBOUR", section="file:///nowhere.odt"))
    with Client(service.url, service.key) as client, Index(tmp_path / "s", client) as index:
        assert not index.add(tmp_path / "in").failed
        linking, missing = (hit.score for hit in index.search("WALRUS"))
    assert linking == pytest.approx(missing, abs=0.01)


@needs_office
@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root, to be another user")
def test_as_another_user(tmp_path: Path, outside: Outside) -> None:
    """The same holds for a user who may do little: links lead nowhere, documents are read."""
    write_linking(tmp_path / "in", outside)
    for path in [*tmp_path.parents, tmp_path, *tmp_path.rglob("*")]:
        if str(path).startswith("/tmp/") or path.is_relative_to(tmp_path):  # noqa: S108
            path.chmod(path.stat().st_mode | 0o755)
    script = (
        "import sys; from pathlib import Path\n"
        "from pagevec.ingest.boundary import open_document\n"
        "for file in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    with open_document(file) as pages:\n"
        "        print(file.name, [pages.make(n + 1).text for n in range(pages.count)])\n"
    )
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    again = (
        "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'import pagevec'])"
    )
    usual = f"/usr/bin/python3.{sys.version_info.minor}"  # one's own may stand in root's home
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/nonexistent"}

    def run(python: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [*user, python, "-B", "-c", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    pythons = [one for one in (sys.executable, usual) if run(one, again).returncode == 0]
    if not pythons:
        pytest.skip("another user cannot run this Python")
    done = run(pythons[0], script, tmp_path / "in")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("HARBOUR") == 6
    assert "WALRUS" not in done.stdout
    assert outside.callers == []


@needs_office
def test_macros_do_not_run(tmp_path: Path) -> None:
    """A macro that is bound to the opening of a document leaves no trace."""
    trace = tmp_path / "trace"
    (tmp_path / "a.odt").write_bytes(odt_with_macro("HARBOUR", f"/usr/bin/touch {trace}"))
    assert "HARBOUR" in read_texts(tmp_path / "a.odt")[0]
    assert not trace.exists()


def test_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that hangs with a child costs its document; both processes end."""
    programs = tempfile.mkdtemp(dir="/var/tmp")
    program = Path(programs) / "soffice"
    program.write_text("#!/bin/sh\nsleep 987 &\nsleep 987\n")
    program.chmod(0o755)
    (tmp_path / "a.docx").write_bytes(docx("ALBATROSS"))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    boundary.stop_readers()  # idle ones know the former PATH
    hurried = ReadOptions(limits=ReadLimits(open_seconds=2))
    with (
        pytest.raises(DocumentError, match=r"a\.docx: it took more than 2 s"),
        boundary.open_document(tmp_path / "a.docx", hurried),
    ):
        pass
    time.sleep(0.5)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
    assert "sleep 987" not in listed.stdout
    shutil.rmtree(programs)


def test_without_libreoffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LibreOffice the error says what is missing."""
    (tmp_path / "a.docx").write_bytes(docx("ALBATROSS"))
    monkeypatch.setenv("PATH", str(tmp_path))
    boundary.stop_readers()
    with pytest.raises(DocumentError, match=r"a\.docx: .*need LibreOffice \(soffice\)"):
        read_texts(tmp_path / "a.docx")
    boundary.stop_readers()


def test_where_nothing_can_be_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that cannot confine a program, Office files are refused with a sentence."""

    def refuse(folder: Path, program: Path) -> None:
        raise OSError("not here")

    (tmp_path / "a.docx").write_bytes(docx("ALBATROSS"))
    monkeypatch.setattr(office, "confine", refuse)
    monkeypatch.setattr(office.shutil, "which", lambda name: "/bin/true")
    with (
        pytest.raises(DocumentError, match="cannot keep from the network and from other files"),
        office.open_office(tmp_path / "a.docx", ReadOptions()),
    ):
        pass
