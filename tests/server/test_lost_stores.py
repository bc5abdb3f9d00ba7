"""A store whose files go, or are overwritten, under a service that shows it."""

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import serving_documents
from documents_http import Documents
from pagevec.engine.embedder import LocalEmbedder
from pdf_files import pages_pdf


def lose_uploads(store: Path) -> None:
    shutil.rmtree(store / "uploads")


def lose_everything(store: Path) -> None:
    shutil.rmtree(store)


def lose_files(store: Path) -> None:
    for one in files(store):
        one.unlink()


def damage_files(store: Path) -> None:
    for one in files(store):
        one.write_bytes(random.Random(1).randbytes(200_000))  # noqa: S311


def files(store: Path) -> Iterator[Path]:
    yield from [one for one in store.iterdir() if one.is_file()]


def ask_for_all(documents: Documents, identity: str) -> dict[str, httpx.Response]:
    """Ask for everything once."""
    one = f"/documents/{identity}"
    calls: dict[str, dict[str, Any]] = {
        "GET /documents": {},
        f"GET {one}": {},
        f"GET {one}/pages/1": {},
        f"GET {one}/pages/1/image": {},
        "POST /search": {"json": {"query": "parcels"}},
        "GET /status": {},
        "POST /documents": {"files": [("files", ("b.txt", b"another"))]},
        f"DELETE {one}": {},
        "GET /metrics": {},
    }
    return {call: documents.http.request(*call.split(), **fields) for call, fields in calls.items()}


@pytest.mark.parametrize("lose", [lose_uploads, lose_files, lose_everything, damage_files])
def test_lost_stores(embedder: LocalEmbedder, tmp_path: Path, lose: Any) -> None:
    """Whatever is asked, the answer is there or says in words what is lost; no 500, no hang."""
    store = tmp_path / "store"
    with (
        serving_documents(embedder, str(store), store / "uploads") as (service, _),
        Documents.of(service) as documents,
    ):
        [made] = documents.upload(("a.pdf", pages_pdf(["parcels"], bad={})))
        lose(store)
        for _ in range(2):
            for call, answer in ask_for_all(documents, made["id"]).items():
                print(call[:16], answer.status_code, answer.text[:160])
                assert answer.status_code in (200, 202, 404, 503, 507), (call, answer.text)
                if answer.status_code >= 400:
                    assert {"error", "code"} <= answer.json().keys(), call
        assert documents.http.get("/health").json() == {"status": "alive"}


def test_removal_that_was_killed(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """A removal that ended with its process, before the first page went, is as if never asked."""
    store, uploads = str(tmp_path / "store"), tmp_path / "uploads"
    content = pages_pdf([f"page {number}" for number in range(120)], bad={})
    with (
        serving_documents(embedder, store, uploads) as (service, _),
        Documents.of(service) as documents,
    ):
        [made] = documents.upload(("a.pdf", content), wait=False)
        while not documents.get(made["id"])["stored"]:
            time.sleep(0.01)
    [mark] = (uploads / "waiting").iterdir()  # so some pages are still to be done
    mark.unlink()  # what a removal does first
    with (
        serving_documents(embedder, store, uploads) as (service, _),
        Documents.of(service) as documents,
    ):
        whole = documents.wait(made["id"])
        assert (whole["state"], whole["stored"]) == ("complete", 120)
        assert documents.remove(made["id"])["removed_pages"] == 120
