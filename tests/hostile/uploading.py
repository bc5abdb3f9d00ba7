"""A service that takes uploads under attack, and what an attack must not leave behind."""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from conftest import KEY
from documents_http import Documents
from hostile.target import Target, attacked
from processes import MIB
from stores_of_uploads import kept, left_over

BOUNDARY = b"xyz"
KIND = {"Content-Type": "multipart/form-data; boundary=xyz"}
_IDLE_READERS = 4
# Readers of documents are processes of their own: what is counted here is bodies and answers.
_BUDGET = 400 * MIB


@dataclass(frozen=True)
class Shelf:
    """A service with a store and uploads, and the folders that it may write to.

    Attributes:
        target: the service.
        store: the folder of its store; uploads are in it.
        temporary: the folder of its temporary files.
    """

    target: Target
    store: Path
    temporary: Path

    @property
    def uploads(self) -> Path:
        return self.store / "uploads"

    def documents(self, key: str = KEY) -> Documents:
        return Documents(self.target.client(key))

    def post(self, body: bytes | Iterable[bytes]) -> tuple[int, str]:
        """Upload a body of parts; return the status, and the code of a refusal."""
        with self.documents() as documents:
            answer = documents.http.post("/documents?wait=true", content=body, headers=KIND)
        return answer.status_code, answer.json().get("code", "")

    def connect(self, head: bytes, key: str = KEY) -> socket.socket:
        """Begin an upload by hand: its header with these fields, each ended by CRLF."""
        opened = socket.create_connection(("127.0.0.1", self.target.process.port), timeout=90)
        opened.sendall(
            b"POST /documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: multipart/form-data; boundary=xyz\r\n%s\r\n" % (key.encode(), head)
        )
        return opened

    def clear(self) -> None:
        """Remove all documents."""
        with self.documents() as documents:
            for one in documents.list(limit=1000)["documents"]:
                documents.remove(one["id"])

    def check(self, budget: int = _BUDGET) -> None:
        """Check what has to hold after every attack, with the documents that there are."""
        self.settle()
        log = self.target.process.log.read_text()
        assert "Traceback" not in log and "internal error" not in log, log[-4000:]
        assert "status=500" not in log and '"status": 500' not in log, log[-4000:]
        with self.documents() as documents:
            assert documents.http.get("/health").json() == {"status": "alive"}
            names = [one["name"] for one in documents.list(limit=1000)["documents"]]
        assert len(kept(self.uploads)) <= len(names)
        assert bool(kept(self.uploads)) == bool(names)
        assert left_over(self.uploads) == []
        readers = psutil.Process(self.target.process.popen.pid).children()
        assert len(readers) <= _IDLE_READERS
        assert len([*self.temporary.iterdir()]) <= len(readers)
        self.target.check_alive(budget)

    def settle(self, seconds: float = 60) -> None:
        """Wait until nothing is received or ingested any more."""
        end = time.monotonic() + seconds
        while left_over(self.uploads):
            assert time.monotonic() < end, left_over(self.uploads)
            time.sleep(0.05)


@contextmanager
def shelf_under_attack(folder: Path, **variables: str) -> Iterator[Shelf]:
    """Serve a store that takes uploads in a process of limited memory."""
    (temporary := folder / "temporary").mkdir()
    store = folder / "store"
    options = ("--store", str(store), "--uploads")
    with attacked(folder, *options, TMPDIR=str(temporary), **variables) as target:
        yield Shelf(target, store, temporary)


def part(filename: bytes, content: bytes, *more: bytes) -> bytes:
    """Return one part of a body, with more header lines."""
    head = b'Content-Disposition: form-data; name="f"; filename="%s"' % filename
    return b"--xyz\r\n" + b"\r\n".join([head, *more, b"", content]) + b"\r\n"


def body_of(*parts: bytes) -> bytes:
    """Return a whole body of these parts."""
    return b"".join(parts) + b"--xyz--\r\n"
