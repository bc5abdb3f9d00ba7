"""A service that is killed while it takes and ingests uploads, and what is there in the end."""

import hashlib
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from conftest import KEY, png
from documents_http import Documents
from pagevec.stores import open_store
from pagevec.types import PageKey
from pdf_files import pages_pdf
from processes import Process, environment, serving
from stores_of_uploads import kept, left_over

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

BROKEN = b"%PDF-1.7 and no more"
LONG = {"a.pdf": 30, "reports/b.pdf": 20, "c.pdf": 15, "d.pdf": 12, "e.pdf": 10, "f.pdf": 8}


def pdf(name: str, pages: int) -> bytes:
    return pages_pdf([f"{name} page {number}" for number in range(1, pages + 1)], bad={})


@dataclass
class Uploader:
    """Uploads, and remembers the last content of each name that the service has answered for."""

    store: str
    folder: Path
    place: Path
    answered: dict[str, bytes] = field(default_factory=dict)

    def serve(self, act: Callable[[Process, Documents], None], *, is_killed: bool = True) -> None:
        """Start the service, act, and kill it, unless it shall end by itself."""
        options = ("--store", self.store, "--uploads", "--uploads-folder", str(self.folder))
        with serving(self.place, environment(PAGEVEC_MAX_VISUAL_TOKENS="64"), *options) as process:
            with Documents.of(process) as documents:
                act(process, documents)
            if is_killed:
                process.popen.kill()
                process.popen.wait(30)
        log = process.log.read_text()
        assert "Traceback" not in log, log[-4000:]

    def upload(self, documents: Documents, **files: bytes) -> None:
        for name, content in files.items():
            [made] = documents.upload((name, content), wait=False)
            assert made["name"] == f"uploads/{name}"
            self.answered[name] = content


def send_half(process: Process, name: str, content: bytes) -> None:
    """Send a part of an upload, as much as was received when the service is killed."""
    head = f'--xyz\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode()
    with socket.create_connection(("127.0.0.1", process.port)) as opened:
        opened.sendall(
            b"POST /documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: %d\r\n\r\n"
            % (KEY.encode(), len(head) + len(content) + 11)
        )
        opened.sendall(head + content[: len(content) // 2])
        time.sleep(0.3)
        process.popen.send_signal(signal.SIGKILL)
        with suppress(OSError):
            opened.recv(100)


def test_killed_while_it_takes_uploads(store_name: str, tmp_path: Path) -> None:
    """Killed five times over 100 uploaded pages: each is stored once, and nothing else is left.

    Among the moments are those while an upload is received, and after it was accepted but before
    its first page. Each upload that was answered is there, in its last version, with its state;
    one whose answer never came is there as a whole or not at all.
    """
    seed = random.randrange(10**6)  # noqa: S311 - other moments in each run
    print("seed", seed)
    dice = random.Random(seed)  # noqa: S311
    contents = {name: pdf(name, pages) for name, pages in LONG.items()}
    uploader = Uploader(store_name, tmp_path / "uploads", tmp_path)

    def at_random(process: Process, documents: Documents) -> None:
        uploader.upload(documents, **{"edited.pdf": pdf("old", 5), "a.pdf": contents["a.pdf"]})
        time.sleep(dice.random() * 2)

    def before_the_first_page(process: Process, documents: Documents) -> None:
        files = {"edited.pdf": pdf("new", 3), "broken.pdf": BROKEN, "c.pdf": contents["c.pdf"]}
        uploader.upload(documents, **files)

    def while_it_is_received(process: Process, documents: Documents) -> None:
        uploader.upload(documents, **{"d.pdf": contents["d.pdf"]})
        send_half(process, "reports/b.pdf", contents["reports/b.pdf"])

    def while_it_is_accepted(process: Process, documents: Documents) -> None:
        some = {"picture.png": png(300, 300), "text.txt": b"The ferry to Odde."}
        uploader.upload(documents, **some, **{"e.pdf": contents["e.pdf"]})
        documents.http.timeout = httpx.Timeout(dice.random() * 0.02)
        with suppress(httpx.TransportError):
            uploader.upload(documents, **{"f.pdf": contents["f.pdf"]})

    def at_last(process: Process, documents: Documents) -> None:
        rest = {name: one for name, one in contents.items() if name not in uploader.answered}
        uploader.upload(documents, **rest)
        time.sleep(dice.random() * 4)

    for act in (at_random, before_the_first_page, while_it_is_received, while_it_is_accepted):
        uploader.serve(act)
    uploader.serve(at_last)

    def to_the_end(process: Process, documents: Documents) -> None:
        for one in documents.list(limit=1000)["documents"]:
            documents.wait(one["id"])
        found = {one["name"]: one for one in documents.list(limit=1000)["documents"]}
        assert set(found) == {f"uploads/{name}" for name in uploader.answered}
        broken = found.pop("uploads/broken.pdf")
        assert (broken["state"], broken["stored"]) == ("failed", 0) and broken["error"]
        assert {one["state"] for one in found.values()} == {"complete"}
        assert {one["error"] for one in found.values()} == {None}
        uploads = tmp_path / "uploads"
        assert left_over(uploads) == []
        hashes = {hashlib.sha256(one).hexdigest() for one in uploader.answered.values()}
        assert {name.partition(".")[0] for name in kept(uploads)} == hashes
        assert len(kept(uploads)) == len(hashes)

    uploader.serve(to_the_end, is_killed=False)
    pages = LONG | {"edited.pdf": 3, "picture.png": 1, "text.txt": 1}
    assert sum(pages.values()) == 100
    with open_store(store_name) as store:
        assert store.documents() == {f"uploads/{name}": count for name, count in pages.items()}
        for name, count in pages.items():
            assert store.has(f"uploads/{name}") == set(range(1, count + 1))
        keys = [PageKey("uploads/edited.pdf", number) for number in (1, 2, 3)]
        texts = sorted((one.text or "").strip() for one in store.fetch(keys))
        assert texts == [f"new page {number}" for number in (1, 2, 3)]
