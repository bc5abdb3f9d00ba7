"""Documents in a real server of S3, moto's, read by s3fs: killed, resumed, followed."""

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from test_killed import Slow, all_vectors, keys_in, records_in, rows_in, wait_for
from workers import small_pdf

from conftest import KEY, Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.stores import open_store
from real_clients.environments import python_with

pytestmark = pytest.mark.long

SERVER = Path(__file__).parents[1] / "real_clients" / "s3_server.py"
SECRET = "a-very-secret-access-key"
# moto looks at who asks, and at no signature.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=an-access-key-id/20260101/us-east-1/s3/"
    "aws4_request, SignedHeaders=host, Signature=0"
}
DOCUMENTS, PAGES, KILLS = 10, 12, 10


@dataclass(frozen=True)
class S3:
    """A server of S3 with one bucket, and the Python that has s3fs."""

    url: str
    log: Path
    python: Path
    scratch: Path

    def put(self, name: str, content: bytes) -> None:
        address = f"{self.url}/bucket/{name}"
        httpx.put(address, content=content, headers=SIGNED).raise_for_status()

    def delete(self, name: str) -> None:
        httpx.delete(f"{self.url}/bucket/{name}", headers=SIGNED).raise_for_status()

    def fetched(self) -> list[str]:
        """Return the keys of the objects that were fetched so far, in order."""
        found: list[str] = re.findall(r"GET /bucket/(\S+\.\w+) HTTP", self.log.read_text())
        return found

    def start(self, service: Service, store: str, *options: str) -> "subprocess.Popen[str]":
        """Start `pagevec ingest s3://bucket/in` in a process of its own."""
        program = [self.python, "-c", "from pagevec.cli import main; main()", "ingest"]
        where = ["--store", store, "--url", service.url, "--lease-seconds", "0.5"]
        own = {
            "SERVICE_API_KEY": KEY,
            "TMPDIR": str(self.scratch),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "an-access-key-id",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return subprocess.Popen(
            [*program, "s3://bucket/in", *where, *options],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ingest(self, service: Service, store: str, *options: str) -> tuple[int, str]:
        """Ingest to the end; return the exit code and all that was printed."""
        said, complaints = (process := self.start(service, store, *options)).communicate(
            timeout=240
        )
        assert SECRET not in said + complaints
        return process.returncode, said + complaints


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    python = python_with("s3fs==2026.9.0", "moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
    scratch, log = tmp_path / "scratch", tmp_path / "log"
    scratch.mkdir()
    with log.open("w") as written:
        server = subprocess.Popen(
            [python, SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
        )
    assert server.stdout is not None
    try:
        url = next(line.strip() for line in server.stdout if line.startswith("http"))
        httpx.put(f"{url}/bucket", headers=SIGNED).raise_for_status()
        yield S3(url, log, python, scratch)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def slow_service(embedder: LocalEmbedder) -> Iterator[Service]:
    with running(embedder, make_settings(), Slow) as started:
        yield started


def test_killed_resumed_and_followed(s3: S3, slow_service: Service, tmp_path: Path) -> None:
    """Killed 10 times, then finished: nothing twice, nothing missing, as if never disturbed.

    The next run fetches nothing, another one only what changed; deleted objects are removed with
    `--prune`. A bucket that is empty or a server that is away removes nothing. No secret is
    printed, and no copy of an object stays on the disk.
    """
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(DOCUMENTS):
        file = small_pdf(folder / f"{number}.pdf", PAGES + number)  # each of its own
        s3.put(f"in/{'even' if number % 2 == 0 else 'odd'}/{number}.pdf", file.read_bytes())
    undisturbed, store = str(tmp_path / "undisturbed"), str(tmp_path / "store")
    assert s3.ingest(slow_service, undisturbed)[0] == 0
    keys, records = keys_in(undisturbed), records_in(undisturbed)
    assert len(keys) == sum(PAGES + number for number in range(DOCUMENTS))
    assert all(one.version for one in records)

    with open_store(store) as opened:
        chance = random.Random(7)  # noqa: S311 - repeatable, not secret
        for pages in sorted(chance.randrange(len(keys) // 2) for _ in range(KILLS)):
            worker = s3.start(slow_service, store)
            wait_for(opened, pages)
            time.sleep(0.3 * chance.random())
            assert worker.poll() is None
            worker.kill()
            worker.communicate()
    assert s3.ingest(slow_service, store)[0] == 0
    assert keys_in(store) == keys
    assert rows_in(store) == len(keys)
    assert records_in(store) == records
    for there, right in zip(all_vectors(store, keys), all_vectors(undisturbed, keys), strict=True):
        np.testing.assert_allclose(there, right, atol=1e-3)

    before = len(s3.fetched())
    code, said = s3.ingest(slow_service, store)
    assert (code, len(s3.fetched())) == (0, before)
    assert f"{DOCUMENTS} documents were there already" in said
    assert list(s3.scratch.iterdir()) == []  # the last one has removed what killed ones left

    s3.put("in/even/0.pdf", small_pdf(tmp_path / "other.pdf", 3).read_bytes())
    s3.put("in/new.txt", b"a new document")
    s3.delete("in/odd/1.pdf")
    code, said = s3.ingest(slow_service, store, "--prune")
    assert code == 0, said
    assert sorted(s3.fetched()[before:]) == ["in/even/0.pdf", "in/new.txt"]
    assert "removed: in/odd/1.pdf" in said
    names = [one.name for one in records_in(store)]
    assert len(names) == DOCUMENTS
    assert "in/new.txt" in names
    assert sum(key.document == "in/even/0.pdf" for key in keys_in(store)) == 3

    for record in records_in(store):
        s3.delete(record.name)
    code, said = s3.ingest(slow_service, store, "--prune")
    assert code == 2
    assert "there is nothing at s3://bucket/in" in said
    assert [one.name for one in records_in(store)] == names


def test_a_server_that_is_away(s3: S3, service: Service, tmp_path: Path) -> None:
    """Its documents stay, whatever is asked; the exit code is that of a store that is away."""
    s3.put("in/a.txt", b"a text")
    store = str(tmp_path / "store")
    assert s3.ingest(service, store)[0] == 0
    gone = S3("http://127.0.0.1:9", s3.log, s3.python, s3.scratch)
    code, said = gone.ingest(service, store, "--prune")
    assert code == 3
    assert "s3://bucket/in cannot be read: Could not connect" in said
    assert [one.name for one in records_in(store)] == ["in/a.txt"]
