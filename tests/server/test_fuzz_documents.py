"""Thousands of requests about documents, most of them malformed: documented answers only."""

import base64
import json
import random
import sys
from collections.abc import Iterator, Set
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import given
from schemathesis.specs.openapi.checks import (
    positive_data_acceptance,
)

from conftest import KEY, png
from documents_http import Documents
from hostile.uploading import body_of, part
from pdf_files import pages_pdf
from processes import MIB, Process, environment, serving
from server.malformed import repeatable
from server.sending import Request, send

pytestmark = [pytest.mark.long, pytest.mark.timeout(200)]

REQUESTS, EACH = 4_600, 50
OPERATIONS = (
    ("GET", "/documents"),
    ("POST", "/documents"),
    ("GET", "/documents/{id}"),
    ("DELETE", "/documents/{id}"),
    ("GET", "/documents/{id}/pages/{number}"),
    ("GET", "/documents/{id}/pages/{number}/image"),
    ("POST", "/search"),
    ("GET", "/status"),
)
# How often each is asked: what needs the model less often.
WEIGHTS = (4, 6, 8, 2, 8, 3, 8, 2)
LIMITS = {
    "PAGEVEC_MAX_VISUAL_TOKENS": "16",
    "PAGEVEC_MAX_INPUTS": "4",
    "PAGEVEC_MAX_TEXT_CHARS": "64",
    "PAGEVEC_MAX_UPLOAD_BYTES": "16384",
    "PAGEVEC_MAX_UPLOADS_BYTES": "300000",
    "PAGEVEC_MAX_DOCUMENT_PAGES": "5",
    "PAGEVEC_LOG_LEVEL": "warning",
    "PAGEVEC_REQUEST_SECONDS": "10",
}
KIND = "multipart/form-data; boundary=xyz"
FILES = {
    "a.txt": b"The ferry to Odde.",
    "b.pdf": pages_pdf(["one", "two"], bad={}),
    "c.png": png(100, 100),
}
ODD = ("", "\0", "%", "../..", "\u202e", "\ud800", "é" * 400, "'; drop table pages; --", "%_", "[")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("fuzz-documents")
    options = ("--store", str(folder / "store"), "--uploads")
    with serving(folder, environment(**LIMITS), *options) as started:
        with Documents.of(started) as documents:
            documents.upload(*FILES.items())
        yield started


class Maker:
    """Makes requests at random; `described` is the service's own description."""

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        self._paths = described["paths"]
        self._dice = random.Random(seed)  # noqa: S311

    def make(self) -> Request:
        [(method, path)] = self._dice.choices(OPERATIONS, WEIGHTS)
        key, body, kind = KEY, b"", ""
        if self._dice.random() < 0.02:
            key = self._dice.choice(["wrong", "", "\xff"])
        if (method, path) == ("POST", "/search"):
            body = self._search()
        elif method == "POST":
            body, kind = self._upload()
        asked = path.replace("{id}", self._identity()).replace("{number}", self._number())
        if self._dice.random() < 0.5:
            asked += f"?{self._query()}"
        documented = self._documented(method, path)
        if self._dice.random() < 0.02:
            method = self._dice.choice(["PUT", "PATCH", "OPTIONS"])
        return Request(method, asked, key, body, kind, documented)

    def _documented(self, method: str, path: str) -> Set[int]:
        return frozenset(map(int, self._paths[path][method.lower()]["responses"])) - {500}

    def _identity(self) -> str:
        pick = self._dice.random()
        name = f"uploads/{self._dice.choice([*FILES])}"
        if pick < 0.6:
            return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()
        odd = self._dice.choice([name, *ODD, self._dice.randbytes(9).decode("latin-1")])
        if pick < 0.8:
            packed = base64.urlsafe_b64encode(odd.encode("utf-8", "surrogatepass"))
            return packed.rstrip(b"=").decode() or "A"
        return quote(odd.encode("utf-8", "surrogatepass"), safe="") or "-"

    def _number(self) -> str:
        return self._dice.choice(
            ["1", "1", "1", "2", "0", "-1", "9" * 30, "1e3", "%00", "%D9%A1", str(2**31), "1.0"]
        )

    def _query(self) -> str:
        names = ("limit", "after", "search", "wait", "width", "k")
        values = (*ODD, "1", "16", "2001", "true", "false", "-5", "1e9", self._identity())
        return "&".join(
            f"{self._dice.choice(names)}={quote(one.encode('utf-8', 'surrogatepass'), safe='')}"
            for one in self._dice.choices(values, k=self._dice.randint(1, 3))
        )

    def _value(self, depth: int = 0) -> Any:
        scalars = [None, True, 0, -1, 10**30, 1.5, "", *ODD[:2], "uploads", "uploads/a.txt"]
        if depth < 3 and self._dice.random() < 0.3:
            inner = [self._value(depth + 1) for _ in range(self._dice.randrange(4))]
            return inner if self._dice.random() < 0.5 else {str(one): one for one in inner}
        return self._dice.choice(scalars)

    def _search(self) -> bytes:
        fields: dict[str, Any] = {"query": "ferry"}
        for name in ("query", "k", "documents", "metadata", "maps", "more"):
            if self._dice.random() < 0.35:
                fields[name] = self._value()
        whole = json.dumps(fields).encode()
        if self._dice.random() < 0.3:
            place = self._dice.randrange(len(whole))
            return (
                whole[:place] + self._dice.randbytes(self._dice.randrange(3)) + whole[place + 1 :]
            )
        return whole

    def _upload(self) -> tuple[bytes, str]:
        parts = []
        for _ in range(self._dice.choice([0, 1, 1, 2, 5])):
            name = self._dice.choice([*FILES, "bad.png", "x.exe", "", "../a.txt", "d/../e.txt"])
            content = FILES.get(name, self._dice.randbytes(self._dice.choice([0, 10, 5_000])))
            parts.append(part(name.encode(), content))
        body = body_of(*parts)
        if self._dice.random() < 0.4:
            place = self._dice.randrange(len(body))
            body = (
                body[:place]
                + self._dice.choice([b"", b"\r\n", b"--xyz", b"\0"])
                + body[place + 1 :]
            )
        kinds = [KIND] * 8 + ["multipart/form-data", "text/plain", "multipart/form-data; boundary="]
        return body, self._dice.choice(kinds)

    def _damage(self, body: bytes, piece: bytes) -> bytes:
        place = self._dice.randrange(len(body))
        return body[:place] + piece + body[place + 1 :]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of memory")
def test_malformed_requests(process: Process) -> None:
    """4,600 requests to all operations: documented statuses, no fault, bounded memory.

    Which statuses an operation may answer stands in /openapi.json.
    """
    with process.client() as client:
        maker = Maker(client.get("/openapi.json").json(), 1)
        send(process.port, [maker.make() for _ in range(REQUESTS // 10)])
        warm = process.memory()
        statuses = send(process.port, [maker.make() for _ in range(REQUESTS)])
        grown = process.memory() - warm
        print(f"{dict(statuses)}, {warm // MIB} MiB, grown by {grown / MIB:.0f} MiB")
        assert {200, 202, 400, 401, 404, 405, 413} <= set(statuses)
        assert process.popen.poll() is None
        assert grown < 150 * MIB
        assert client.get("/health").json() == {"status": "alive"}
    with Documents.of(process) as documents:
        for one in documents.list(limit=1000)["documents"]:
            documents.wait(one["id"])
            documents.remove(one["id"])
        [made] = documents.upload(("report.txt", b"parcels"))
        assert made["state"] == "complete"
        assert documents.search("parcels")["hits"][0]["document"]["id"] == made["id"]
    log = process.log.read_text()
    assert "Traceback" not in log and "internal error" not in log, log[-4000:]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_description_holds(process: Process, method: str, path: str) -> None:
    """Requests made from /openapi.json get the statuses, types and shapes that it promises."""
    described = schemathesis.openapi.from_url(f"{process.url}/openapi.json")

    @repeatable(EACH)
    @given(described[path][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"},
            # No schema can say that a file has to be of a known type, or which ids there are.
            excluded_checks=[positive_data_acceptance],
        )

    check()
