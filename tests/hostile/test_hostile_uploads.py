"""Uploads that are made to harm: names, contents and bodies that no browser sends."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from hostile.uploading import Shelf, body_of, part, shelf_under_attack
from office_files import pack
from pdf_files import one_page, with_nul, words, write_pdf
from processes import MIB
from stores_of_uploads import kept

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(150)]

NAMES = {
    b"<img src=x onerror=alert(1)>.txt": "<img src=x onerror=alert(1)>.txt",
    b"&amp;<script>.txt": "&amp;<script>.txt",
    b"../../../../../../tmp/up.txt": "tmp/up.txt",
    b"..\\..\\windows\\up.txt": "windows/up.txt",
    b"/etc/cron.d/up.txt": "etc/cron.d/up.txt",
    b"a\x1b]0;title\x07b.txt": "a]0;titleb.txt",
    "left\u202etxt.exe\u2066.txt".encode(): "lefttxt.exe.txt",
    "\u061c\u200earabic.txt".encode(): "arabic.txt",
    "line\u2028break.txt".encode(): "linebreak.txt",
    b"x" * 300 + b".txt": "x" * 116 + ".txt",
    "\U0001f600".encode() * 300 + b".txt": "\U0001f600" * 116 + ".txt",
    b"case.txt": "case.txt",
    b"CASE.TXT": "CASE.TXT",
    b"d/" * 1000 + b"deep.txt": "deep.txt",
    b"\xff\xfe.txt": "\xff\xfe.txt",
    b"NUL.txt": "NUL.txt",
    b"$(reboot);`reboot`.txt": "$(reboot);`reboot`.txt",
}
BAD_NAMES = (
    b"",
    b" ",
    b"/",
    b"..",
    b"\x00",
    b"a.exe",
    b".txt",
    b"x" * 20_000,
    b"d/" * 5000 + b"x.txt",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    folder = tmp_path_factory.mktemp("uploads")
    with shelf_under_attack(folder, PAGEVEC_MAX_INPUTS="64") as shelf:
        yield shelf


@pytest.fixture
def shelf(served: Shelf) -> Iterator[Shelf]:
    """The service, which is checked and emptied after each attack."""
    yield served
    served.check()
    served.clear()
    served.check()


def encrypted(folder: Path) -> bytes:
    place = folder / "encrypted.pdf"
    canvas = Canvas(str(place), encrypt=StandardEncryption("secret", strength=128))
    canvas.drawString(100, 100, "hidden")
    canvas.save()
    return place.read_bytes()


def test_names(shelf: Shelf, tmp_path: Path) -> None:
    """Names lead nowhere, are shown as text, and are told apart; the disk has hashes for names."""
    before = {one.name for one in shelf.store.parent.iterdir()}
    for number, name in enumerate(NAMES):
        status, code = shelf.post(body_of(part(name, b"%d" % number)))
        assert status == 200, (name[:40], status, code)
    for name in BAD_NAMES:
        assert shelf.post(body_of(part(name, b"x"))) == (400, "invalid_request"), name[:40]
    with shelf.documents() as documents:
        found = documents.list(limit=1000)["documents"]
        assert {one["name"] for one in found} == {f"uploads/{one}" for one in NAMES.values()}
        for one in found:
            assert documents.get(one["id"]) == one
            assert documents.search("x", documents=[one["id"]])["hits"][0]["document"]["name"]
    assert {one.name for one in shelf.store.parent.iterdir()} == before
    assert all(len(name.partition(".")[0]) == 64 for name in kept(shelf.uploads))


def test_texts(shelf: Shelf) -> None:
    """Markup in a text layer stays text; NUL and halves of characters do not stop a page."""
    script = one_page(words("<script>alert\\(1\\)</script>"))
    with shelf.documents() as documents:
        made = documents.upload(("script.pdf", script), ("nul.pdf", with_nul()))
        assert [one["state"] for one in made] == ["complete", "complete"]
        hits = documents.search("alert")["hits"]
        snippets = {one["document"]["id"]: one["snippet"] for one in hits}
        assert snippets[made[0]["id"]] == "<script>alert(1)</script>"
        assert "\0" not in (snippets[made[1]["id"]] or "")
        answer = documents.http.get(f"/documents/{made[0]['id']}/pages/1")
        assert answer.headers["content-type"] == "application/json"


def test_contents(shelf: Shelf, tmp_path: Path) -> None:
    """Each file that cannot be ingested says why, soon, and costs nothing but its own document."""
    endless = write_pdf({
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[%s]/Count 10000>>" % (b"3 0 R " * 10_000),
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]>>",
    })  # fmt: skip
    bomb = pack({"word/document.xml": " " * (300 * MIB)})
    reasons = {
        "endless.pdf": (endless, "10,000 pages, the limit is 2,000"),
        "encrypted.pdf": (encrypted(tmp_path), "password"),
        "empty.pdf": (b"", "empty"),
        "bomb.docx": (bomb, ""),
        "bomb.epub": (pack({"META-INF/container.xml": " " * (65 << 20)}), ""),
        "lie.png": (b"\x89PNG\r\n\x1a\n" + bytes(1000), ""),
    }
    with shelf.documents() as documents:
        started = time.monotonic()
        made = documents.upload(*((name, content) for name, (content, _) in reasons.items()))
        assert time.monotonic() - started < 30
        for one, (name, (_, reason)) in zip(made, reasons.items(), strict=True):
            assert (one["name"], one["state"], one["stored"]) == (f"uploads/{name}", "failed", 0)
            assert reason in one["error"], one
        good, *_ = documents.upload(("good.txt", b"good"))
        assert good["state"] == "complete"
    assert sum(one.stat().st_size for one in shelf.temporary.rglob("*") if one.is_file()) < MIB


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (body_of(part(b"a.txt", b"") * 100_000), 413),
        (body_of(b"--xyz\r\n\r\n\r\n" * 100_000), 413),
        (body_of(part(b"a.png", b"\r\n--xy" * 200_000)), 200),
        (body_of(part(b"a.png", b"\r\n--xyzz" * 120_000)), 200),
        (body_of(part(b"a.png", b"\r\n--xyz" * 160_000)), 400),
        (body_of(part(b"a.txt", body_of(part(b"b.txt", b"b")).replace(b"xyz", b"abc"))), 200),
        (body_of(part(b"a.txt", b"a", *[b"A: b"] * 5_000)), 400),
        (body_of(part(b"a.txt", b"a", b"A: " + b"b" * MIB)), 400),
        (body_of(part(b"a.txt", b"a", b"A" * MIB)), 400),
        (b"--xyz\r\n" + b"A: b\r\n" * 300_000, 400),
        (b"\r\n" * MIB, 400),
        (b"-" * 2 * MIB, 400),
        (body_of(part(b"a.txt", b"a")) + b"x" * MIB, 200),
        (body_of(part(b"a.txt", b"a")) * 2, 200),
        (body_of(part(b"a.txt", b"a")).replace(b"\r\n", b"\n"), 400),
        (body_of(part(b'a.txt"; filename="b.txt', b"a")), 200),
    ],
    ids=range(16),
)
def test_bodies(shelf: Shelf, body: bytes, status: int) -> None:
    """Bodies of many tiny parts, of boundaries, of headers: an answer at once, and no memory."""
    started = time.monotonic()
    answer = shelf.post(body)
    assert answer[0] == status, answer
    assert time.monotonic() - started < 5
    pieces = (body[start : start + 997] for start in range(0, min(len(body), MIB), 997))
    if len(body) <= MIB:
        assert shelf.post(pieces)[0] == status


def read_status(opened: socket.socket) -> int:
    with opened, opened.makefile("rb") as answer:
        line = answer.readline()
        return int(line.split()[1]) if line else 0


def test_senders_who_do_not_finish(shelf: Shelf) -> None:
    """Who leaves, drips, stops or lies about the length leaves nothing; who stays is told."""
    begun, statuses = part(b"a.txt", b"a" * 100_000)[:-2], dict[str, int]()

    def drip(opened: socket.socket) -> None:
        until = time.monotonic() + 40
        try:
            while time.monotonic() < until and not statuses.get("dripped"):
                opened.sendall(b"a")
                time.sleep(1)
        except OSError:
            pass

    left = shelf.connect(b"Content-Length: 1000000\r\n")
    left.sendall(begun)
    left.close()
    stopped = shelf.connect(b"Content-Length: 1000000\r\n")
    stopped.sendall(begun)
    dripped = shelf.connect(b"Content-Length: 1000000\r\n")
    dripped.sendall(begun)
    threading.Thread(target=drip, args=(dripped,), daemon=True).start()
    unended = shelf.connect(b"Transfer-Encoding: chunked\r\n")
    unended.sendall(b"%x\r\n%s\r\n" % (len(begun), begun))
    short = shelf.connect(b"Content-Length: %d\r\n" % (len(begun) - 10))
    short.sendall(begun)
    statuses["short"] = read_status(short)
    huge = shelf.connect(b"Content-Length: 99999999999\r\n")
    statuses["huge"] = read_status(huge)
    both = shelf.connect(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")
    statuses["both"] = read_status(both)
    assert shelf.target.time_query() < 2
    statuses["stopped"], statuses["unended"] = read_status(stopped), read_status(unended)
    statuses["dripped"] = read_status(dripped)
    assert statuses == {
        "short": 400,
        "huge": 413,
        "both": 400,
        "stopped": 408,
        "unended": 408,
        "dripped": 408,
    }
    with shelf.documents() as documents:
        assert documents.list()["total"] == 0
