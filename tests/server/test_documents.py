"""Documents over HTTP: uploaded, listed, shown, searched, removed; on both kinds of store."""

import base64
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor
from PIL import Image

from conftest import EXAMPLES, png, serving_documents
from documents_http import Documents
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import InvalidRequest
from pagevec.images import read_image
from pagevec.ingest.boundary import open_document
from pagevec.ingest.catalogue import Catalogue
from pagevec.ingest.filenames import clean_filename
from pagevec.ingest.names import name_documents
from pagevec.ingest.page import ReadOptions
from pagevec.ingest.sources import find_documents
from pagevec.ingest.uploads import Uploads
from pagevec.search.library import Library
from pagevec.server.found import cut_snippet
from pagevec.stores import open_store
from pdf_files import pages_pdf

REPORT = (EXAMPLES / "annual-report.pdf").read_bytes()
QUESTION = "parcels and punctuality"


@dataclass(frozen=True)
class Served:
    documents: Documents
    library: Library
    folder: Path

    def kept(self) -> set[str]:
        """Return the names of the files that are kept."""
        return {one.name for one in self.folder.iterdir() if one.is_file() and one.name[0] != "."}


@pytest.fixture
def served(embedder: LocalEmbedder, store_name: str, tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "uploads"
    with (
        serving_documents(embedder, store_name, folder) as (service, library),
        Documents.of(service) as documents,
    ):
        yield Served(documents, library, folder)


@pytest.fixture(scope="module")
def report(
    embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Documents, dict[str, Any]]]:
    """A service with the report, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("report")
    with (
        serving_documents(embedder, str(folder / "store"), folder / "uploads") as (service, _),
        Documents.of(service) as documents,
    ):
        [made] = documents.upload(("report.pdf", REPORT))
        documents.upload(("notes.txt", b"The ferry to Odde takes parcels, too."))
        yield documents, made


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """Return the sentence of a refusal."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    sentence: str = answer.json()["error"]
    return sentence


def test_the_life_of_an_upload(served: Served) -> None:
    """It waits, is complete, found, shown and removed; its file is kept as long, and no longer."""
    documents = served.documents
    [accepted] = documents.upload(("reports/2024.pdf", REPORT), wait=False)
    assert accepted["state"] in ("waiting", "ingesting")
    made = documents.wait(accepted["id"])
    assert made == {
        "id": accepted["id"],
        "name": "uploads/reports/2024.pdf",
        "state": "complete",
        "stored": 6,
        "pages": 6,
        "error": None,
        "is_upload": True,
    }
    assert len(served.kept()) == 1
    best, *_ = documents.search(QUESTION, k=2)["hits"]
    assert (best["document"]["id"], best["page"]) == (made["id"], 4)
    assert "Parcels and punctuality" in best["snippet"]
    assert documents.remove(made["id"]) == {"name": made["name"], "removed_pages": 6}
    assert documents.list() == {"documents": [], "total": 0, "next": None}
    assert served.kept() == set()
    assert documents.search(QUESTION)["hits"] == []
    refused(documents.http.get(f"/documents/{made['id']}"), 404, "not_found")
    refused(documents.http.delete(f"/documents/{made['id']}"), 404, "not_found")


def test_the_same_name_again(served: Served) -> None:
    """The same content costs nothing; another one takes its place, and its file goes."""
    documents = served.documents
    [first] = documents.upload(("a.txt", b"the first version"))
    [again] = documents.upload(("a.txt", b"the first version"), wait=False)
    assert again == first  # complete at once
    [second] = documents.upload(("a.txt", b"the second version"))
    assert (second["id"], second["state"], second["stored"]) == (first["id"], "complete", 1)
    assert len(served.kept()) == 1
    [hit] = documents.search("version")["hits"]
    assert hit["snippet"] == "the second version"


def test_the_same_content_twice(served: Served) -> None:
    """Two documents share one file, which stays until the second one is removed."""
    documents = served.documents
    one, other = documents.upload(("one.txt", b"the same"), ("other.txt", b"the same"))
    assert (one["state"], other["state"]) == ("complete", "complete")
    assert len(served.kept()) == 1
    documents.remove(one["id"])
    assert len(served.kept()) == 1
    documents.remove(other["id"])
    assert served.kept() == set()


def test_broken_documents(served: Served) -> None:
    """Each says why, costs no other, and keeps what can be read of it."""
    documents = served.documents
    torn = pages_pdf(["first", "second", "third"], bad={2: b"no content at all"})
    empty, broken, good = documents.upload(
        ("empty.pdf", b""), ("broken.docx", b"no zip at all"), ("good.png", png(200, 200))
    )
    assert (empty["state"], empty["stored"]) == ("failed", 0)
    assert "the file is empty" in empty["error"]
    assert broken["state"] == "failed" and "damaged" in broken["error"]
    assert good["state"] == "complete"
    [partly] = documents.upload(("torn.pdf", torn))
    assert partly["state"] in ("complete", "incomplete")
    assert partly["pages"] == 3
    assert documents.remove(empty["id"])["removed_pages"] == 0


def test_a_wait_ends_with_the_final_state(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited is not told that a document is being ingested while its thread still tidies up."""
    monkeypatch.setattr(Uploads, "sweep", lambda _: time.sleep(1))
    [made] = served.documents.upload(("a.txt", b"some words"))
    assert (made["state"], made["stored"]) == ("complete", 1)


def test_too_many_pages(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """A document over the limit on pages is refused before its first page."""
    with (
        serving_documents(
            embedder, str(tmp_path / "s"), tmp_path / "uploads", max_document_pages=5
        ) as (service, _),
        Documents.of(service) as documents,
    ):
        [made] = documents.upload(("report.pdf", REPORT))
    assert (made["state"], made["stored"]) == ("failed", 0)
    assert "it has 6 pages, the limit is 5: split it" in made["error"]


def test_listing(served: Served) -> None:
    """Pages of a list have each document once, in the order of names; a search ignores case."""
    names = [f"{number}.txt" for number in range(5)]
    served.documents.upload(*((name, name.encode()) for name in names))
    found, after = list[str](), ""
    while True:
        page = served.documents.list(limit=2, **({"after": after} if after else {}))
        assert page["total"] == 5
        found += [one["name"] for one in page["documents"]]
        after = page["next"]
        if after is None:
            break
    assert found == [f"uploads/{name}" for name in names]
    [one] = served.documents.list(search="UPLOADS/3")["documents"]
    assert one["name"] == "uploads/3.txt"


def test_pictures(report: tuple[Documents, dict[str, Any]]) -> None:
    """A page is drawn from the upload, as wide as asked at most; a text has no picture."""
    documents, made = report
    whole = documents.image(made["id"], 4)
    assert whole.headers["pagevec-image"] == "file"
    assert Image.open(BytesIO(whole.content)).width > 800
    small = documents.image(made["id"], 4, width=200)
    assert Image.open(BytesIO(small.content)).width == 200
    [text] = documents.list(search="notes")["documents"]
    assert "it is a text" in refused(documents.image(text["id"], 1), 404, "not_found")
    refused(documents.image(made["id"], 7), 404, "not_found")
    refused(documents.image(made["id"], 4, width=3), 400, "invalid_request")
    page = documents.http.get(f"/documents/{made['id']}/pages/4").json()
    assert "Parcels and punctuality" in page["text"]
    assert page["image"] == f"documents/{made['id']}/pages/4/image"


def test_maps(report: tuple[Documents, dict[str, Any]]) -> None:
    """Each word has a map of each page; the highest cell is where the word stands."""
    documents, made = report
    found = documents.search(QUESTION, k=2, documents=[made["id"]], maps=True)
    assert found["words"] == ["parcels", "and", "punctuality"]
    maps = found["hits"][0]["maps"]
    assert len(maps["words"]) == 3

    def grid(encoded: str) -> np.ndarray:
        cells = np.frombuffer(base64.b64decode(encoded), np.uint8)
        return cells.reshape(maps["rows"], maps["columns"])

    for encoded in maps["words"]:
        row, _ = np.unravel_index(grid(encoded).argmax(), grid(encoded).shape)
        assert row < maps["rows"] / 2  # the title and the first table
    assert grid(maps["whole"]).max() == 255
    assert documents.search(QUESTION, k=1)["hits"][0]["maps"] is None
    [text] = documents.search("ferry to Odde", documents=["uploads/notes.txt"], maps=True)["hits"]
    assert text["maps"] is None and "it is a text" in text["no_maps"]


def test_filters(report: tuple[Documents, dict[str, Any]]) -> None:
    """Documents are named by id, name or folder; metadata counts; unknown ones are errors."""
    documents, made = report
    for wanted in (made["id"], "uploads/report.pdf"):
        assert {one["page"] for one in documents.search("ferry", documents=[wanted])["hits"]} == {
            *range(1, 7)
        }
    assert len(documents.search("ferry", documents=["uploads"])["hits"]) == 7
    [text] = documents.search("ferry", metadata={"type": "text"})["hits"]
    assert text["document"]["name"] == "uploads/notes.txt"
    body = {"query": "ferry", "documents": ["nowhere.pdf"]}
    refused(documents.http.post("/search", json=body), 400, "invalid_request")
    body = {"query": "ferry", "metadata": {"color": "red"}}
    refused(documents.http.post("/search", json=body), 400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_request"),
        (b"{", "invalid_json"),
        (b'{"query": ""}', "invalid_request"),
        (b'{"query": "  "}', "invalid_request"),
        (b'{"query": "a", "k": 0}', "invalid_request"),
        (b'{"query": "a", "k": 1000}', "invalid_request"),
        (b'{"query": "a", "k": "10"}', "invalid_request"),
        (b'{"query": "a", "color": 1}', "invalid_request"),
        (b'{"query": "a", "documents": ["\\u0000"]}', "invalid_request"),
        (b'{"query": "a", "metadata": {"a": [1]}}', "invalid_request"),
        (b'{"query": "' + b"x" * 32_001 + b'"}', "text_too_long"),
        (b"[" * 100_000, "invalid_json"),
    ],
)
def test_malformed_searches(
    report: tuple[Documents, dict[str, Any]], body: bytes, code: str
) -> None:
    """What cannot be searched for is refused, with the field at fault."""
    refused(report[0].http.post("/search", content=body), 400, code)


def test_malformed_uploads(served: Served) -> None:
    """Bodies that hold no files, or are cut, are refused, and leave nothing behind."""
    http, boundary = served.documents.http, "multipart/form-data; boundary=xyz"
    head = b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n'
    for body, kind in (
        (b"hello", "text/plain"),
        (b"hello", "multipart/form-data"),
        (b"hello", boundary),
        (head + b"cut", boundary),
        (head.replace(b'; filename="a.txt"', b"") + b"x\r\n--xyz--\r\n", boundary),
        (head.replace(b"a.txt", b"a.exe") + b"x\r\n--xyz--\r\n", boundary),
        (head.replace(b"a.txt", b"") + b"x\r\n--xyz--\r\n", boundary),
        (b"--xyz\r\n" + b"A: " + b"b" * 20_000 + b"\r\n\r\n", boundary),
    ):
        answer = http.post("/documents", content=body, headers={"Content-Type": kind})
        refused(answer, 400, "invalid_request")
    packed = {"Content-Type": boundary, "Content-Encoding": "gzip"}
    refused(http.post("/documents", content=b"", headers=packed), 415, "unsupported_encoding")
    assert served.kept() == set()
    assert list((served.folder / "incoming").iterdir()) == []
    assert served.documents.list()["total"] == 0


def test_limits_of_uploads(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """One upload and all of them together have limits; what is removed makes room."""
    limits = {"max_upload_bytes": 3000, "max_uploads_bytes": 4000}
    with (
        serving_documents(embedder, str(tmp_path / "s"), tmp_path / "u", **limits) as (service, _),
        Documents.of(service) as documents,
    ):
        big = [("files", ("big.txt", b"x" * 4000))]
        refused(documents.http.post("/documents", files=big), 413, "body_too_large")
        chunks = (b"x" * 1000 for _ in range(5))  # of no stated length
        kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
        answer = documents.http.post("/documents", content=chunks, headers=kind)
        assert answer.status_code in (400, 413)
        first, _ = documents.upload(("a.txt", b"a" * 1500), ("b.txt", b"b" * 900))
        third = [("files", ("c.txt", b"c" * 2000))]
        refused(documents.http.post("/documents", files=third), 507, "storage_full")
        documents.remove(first["id"])
        assert documents.http.post("/documents?wait=true", files=third).status_code == 200


def test_reading_only(embedder: LocalEmbedder, store_name: str, tmp_path: Path) -> None:
    """Without --uploads documents are searched and shown, and not changed, whatever is sent."""
    uploads = tmp_path / "uploads"
    with (
        serving_documents(embedder, store_name, uploads) as (service, _),
        Documents.of(service) as documents,
    ):
        [made] = documents.upload(("report.pdf", REPORT))
    with (
        serving_documents(embedder, store_name, uploads, uploads=False) as (service, _),
        Documents.of(service) as documents,
    ):
        assert documents.http.get("/info").json()["documents"] == "read"
        assert documents.search(QUESTION)["hits"][0]["page"] == 4
        assert documents.image(made["id"], 4).headers["pagevec-image"] == "file"
        files = [("files", ("a.txt", b"a"))]
        refused(documents.http.post("/documents", files=files), 403, "forbidden")
        refused(documents.http.delete(f"/documents/{made['id']}"), 403, "forbidden")
        assert documents.get(made["id"])["state"] == "complete"


def test_documents_of_this_machine(served: Served, tmp_path: Path) -> None:
    """A page is drawn from its file; if that changes or goes, the thumbnail comes, and why."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "report.pdf").write_bytes(REPORT)
    served.library.add([folder])
    [made] = served.documents.list()["documents"]
    assert (made["name"], made["is_upload"]) == ("papers/report.pdf", False)
    assert served.documents.image(made["id"], 4).headers["pagevec-image"] == "file"
    (folder / "report.pdf").write_bytes(REPORT + b" ")
    changed = served.documents.image(made["id"], 4)
    assert changed.headers["pagevec-image"] == "thumbnail"
    assert "has changed" in changed.headers["pagevec-image-reason"]
    assert Image.open(BytesIO(changed.content)).width < 330
    (folder / "report.pdf").unlink()
    assert "is gone" in served.documents.image(made["id"], 4).headers["pagevec-image-reason"]
    served.documents.remove(made["id"])
    assert served.documents.list()["total"] == 0


def test_pruning_touches_no_upload(served: Served, store_name: str, tmp_path: Path) -> None:
    """Whatever is pruned, and even if its file is gone: only DELETE removes an upload."""
    folder = tmp_path / "uploads-of-mine"
    folder.mkdir()
    for name in ("stays.txt", "goes.txt"):
        (folder / name).write_text(f"this one {name}")
    served.library.add([folder])
    [made] = served.documents.upload(("sent.txt", b"sent to the service"))
    (folder / "goes.txt").unlink()
    for file in served.kept():
        (served.folder / file).unlink()
    with open_store(store_name) as store:
        removed = Catalogue(store).prune([tmp_path, folder, served.folder])
        assert removed.removed == ("uploads-of-mine/goes.txt",)
        with pytest.raises(InvalidRequest, match="that of uploaded documents"):
            name_documents(find_documents([folder]), store, "uploads")
    assert served.documents.get(made["id"])["state"] == "complete"


def test_without_a_key(report: tuple[Documents, dict[str, Any]]) -> None:
    """Every path about documents needs the key, before anything is read."""
    documents, made = report
    base, one = documents.http.base_url, f"/documents/{made['id']}"
    with httpx.Client(base_url=base) as stranger:
        for method, path in (
            ("GET", "/documents"),
            ("POST", "/documents"),
            ("GET", one),
            ("DELETE", one),
            ("GET", f"{one}/pages/4"),
            ("GET", f"{one}/pages/4/image"),
            ("POST", "/search"),
            ("GET", "/status"),
        ):
            refused(stranger.request(method, path), 401, "unauthorized")
        assert stranger.get("/", headers={"Accept": "text/html"}).status_code == 200


def test_telemetry(report: tuple[Documents, dict[str, Any]]) -> None:
    """Searches and pictures have stages in Server-Timing and metrics, under their route."""
    documents, made = report
    answer = documents.http.post("/search", json={"query": QUESTION, "maps": True})
    timing = answer.headers["server-timing"]
    assert all(f"{stage};dur=" in timing for stage in ("queue", "model", "search", "encode"))
    documents.image(made["id"], 1)
    metrics = documents.http.get("/metrics").text
    route = "/documents/{id}/pages/{number}/image"
    assert f'pagevec_requests_total{{method="GET",path="{route}",status="200"}}' in metrics
    assert 'pagevec_stage_seconds_count{stage="search"}' in metrics
    assert "pagevec_documents_waiting 0.0" in metrics
    assert "pagevec_upload_pages_total 7.0" in metrics
    status = documents.http.get("/status").json()
    assert (status["documents"], status["pages"], status["ingesting"]) == (2, 7, 0)


def test_allowed_methods(report: tuple[Documents, dict[str, Any]]) -> None:
    """`Allow` names all methods of a path with a document in it."""
    documents, made = report
    answer = documents.http.put(f"/documents/{made['id']}")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("identity", ["x", "%00", "AA", "a" * 9000, "..%2f..", "dXBsb2Fk="])
def test_unknown_ids(report: tuple[Documents, dict[str, Any]], identity: str) -> None:
    """What is no id of a document is not found, and harms nothing."""
    refused(report[0].http.get(f"/documents/{identity}"), 404, "not_found")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("a/b/report.PDF", "a/b/report.PDF"),
        ("../../etc/passwd.txt", "etc/passwd.txt"),
        ("/etc/./x.txt", "etc/x.txt"),
        ("C:\\Users\\me\\x.txt", "Users/me/x.txt"),
        ("a\x00\x1b[31mb\r\n.txt", "a[31mb.txt"),
        ("evil\u202efdp.txt", "evilfdp.txt"),
        ("<img src=x onerror=alert(1)>.txt", "<img src=x onerror=alert(1)>.txt"),
        (" . /x.txt", "x.txt"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
        ("\U0001f1f3\U0001f1f4.txt", "\U0001f1f3\U0001f1f4.txt"),
    ],
)
def test_names_of_files(given: str, kept: str) -> None:
    """Names lead nowhere else and can be read as they stand; what they mean stays."""
    assert clean_filename(given) == kept


@pytest.mark.parametrize("given", ["", ".", "..", "/", "a", "a.exe", ".pdf", "\x00"])
def test_names_that_are_refused(given: str) -> None:
    """A name without a type that is read here is refused."""
    with pytest.raises(InvalidRequest, match="unsupported file type"):
        clean_filename(given)


def test_snippets() -> None:
    """A snippet is where most of the words stand, in one line, and no longer than it may be."""
    page = "zero " * 200 + "the night route\ncarried passengers " + "one " * 200
    snippet = cut_snippet(page, ["Night", "route", "passengers"])
    assert snippet is not None
    assert "the night route carried passengers" in snippet
    assert len(snippet) <= 300 and snippet.startswith("…") and snippet.endswith("…")
    assert cut_snippet("short\ttext", ["x"]) == "short text"
    assert cut_snippet("  ", ["x"]) is None


def test_scores(report: tuple[Documents, dict[str, Any]], embedder: LocalEmbedder) -> None:
    """Scores are those of colpali-engine's `score_multi_vector`, to 1e-3, relative."""
    documents, made = report
    hits = documents.search(QUESTION, k=6, documents=[made["id"]])["hits"]
    options = ReadOptions(resizing=embedder.info().resizing)
    with open_document(EXAMPLES / "annual-report.pdf", options) as pages:
        files = [pages.make(number).content for number in range(1, 7)]
    images = [read_image(one) for one in files if isinstance(one, bytes)]
    query = embedder.embed_texts([QUESTION]).result().vectors
    expected = BaseVisualRetrieverProcessor.score_multi_vector(
        [torch.from_numpy(one) for one in query],
        [torch.from_numpy(one) for one in embedder.embed_images(images).result().vectors],
        device="cpu",
    )[0].numpy()
    found = [hit["score"] for hit in sorted(hits, key=lambda hit: int(hit["page"]))]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.long
def test_office_files_are_converted_once(served: Served) -> None:
    """The pages of an Office file are drawn one after another without converting it again."""
    if shutil.which("soffice") is None:
        pytest.skip("there is no LibreOffice")
    paragraphs = "".join(
        f"<p>Page {number}</p><br style='page-break-before:always'>" for number in range(6)
    )
    [made] = served.documents.upload(("pages.html", f"<html>{paragraphs}</html>".encode()))
    assert made["state"] == "complete"

    def draw(page: int) -> float:
        started = time.perf_counter()
        answer = served.documents.image(made["id"], page)
        assert answer.headers["pagevec-image"] == "file"
        return time.perf_counter() - started

    first, *others = [draw(page) for page in range(1, 1 + min(4, made["pages"]))]
    assert max(others) < first / 2


def test_errors_tell_no_path(served: Served) -> None:
    """What is wrong with an upload is said of the file: where it is kept is nobody's business."""
    broken, torn = served.documents.upload(
        ("a/broken.pdf", b"%PDF-1.4 nothing"),
        ("torn.pdf", pages_pdf(["first", "second"], bad={2: b"<</Type/Page/Parent 2 0 R>>"})),
    )
    assert broken["error"].startswith("the file: not a PDF")
    for made in (broken, torn):
        assert str(served.folder) not in (made["error"] or "")
    refusal = served.documents.http.post(
        "/search", json={"query": "a", "documents": [str(served.folder)]}
    )
    assert "there is no document" in refused(refusal, 400, "invalid_request")
