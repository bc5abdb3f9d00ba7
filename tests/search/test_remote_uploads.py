"""Documents on their way to a service: sent in pieces, tried again, refused one by one."""

import threading
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

import pagevec
from conftest import EXAMPLES, Service, serving_documents
from pagevec.client.faults import ServiceError, Unreachable
from pagevec.client.forms import FileForm
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import (
    DocumentError,
    Forbidden,
    InvalidRequest,
    NoStore,
    Unauthorized,
)
from pagevec.local import LocalModel


def test_a_document_that_fails_stops_no_other(there: Service, tmp_path: Path) -> None:
    """What is too large, damaged or gone is named in its outcome; the others are stored."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_text("the night route")
    (folder / "large.txt").write_text("much " * 300_000)
    (folder / "odd.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (folder / "secret.txt").write_text("not for everyone")
    (folder / "secret.txt").chmod(0)
    with pagevec.Index(there.url, there.key) as index:
        report = index.add(folder)
        failed = {one.document.rpartition("/")[2]: one.error or "" for one in report.failed}
        readable = {} if (folder / "secret.txt").stat().st_uid == 0 else {"secret.txt"}
        assert failed.keys() == {"large.txt", "odd.pdf", *readable}
        assert (
            str(folder / "large.txt") in failed["large.txt"] and "1,048,576" in failed["large.txt"]
        )
        assert index.search("night route", k=1)[0].document == "uploads/in/good.txt"
        [odd] = [one for one in index.documents() if one.name.endswith("odd.pdf")]
        assert (odd.stored, odd.complete) == (0, False) and odd.error


def test_an_edited_document(there: Service, tmp_path: Path) -> None:
    """Its pages take the place of the former ones, and count as stored now."""
    file = tmp_path / "notes.txt"
    with pagevec.Index(there.url, there.key) as index:
        for text in ("about owls", "about bees"):
            file.write_text(text)
            [outcome] = index.add(file, label="mine").outcomes
            assert (outcome.document, outcome.stored) == ("uploads/mine/notes.txt", 1)
        assert [hit.text for hit in index.search("owls")] == ["about bees"]


def test_many_documents(there: Service, tmp_path: Path) -> None:
    """More documents than are sent at once, and than are listed at once, all arrive."""
    (tmp_path / "many").mkdir()
    for number in range(130):
        (tmp_path / "many" / f"{number:03}.txt").write_text(f"number {number}")
    with pagevec.Index(there.url, there.key) as index:
        report = index.add(tmp_path / "many")
        assert (report.pages_stored, report.failed) == (130, ())
        assert [one.name for one in index.documents()] == [one.document for one in report.outcomes]
        with pytest.raises(InvalidRequest, match=r"did you mean 'uploads/many/077\.txt'"):
            index.remove("many/077.txt")


def test_folders_of_one_name(there: Service, tmp_path: Path) -> None:
    """Two folders of one name are not mixed up: each needs a label of its own."""
    for place in ("a", "b"):
        (tmp_path / place / "docs").mkdir(parents=True)
        (tmp_path / place / "docs" / "x.txt").write_text(place)
    folders = [tmp_path / "a" / "docs", tmp_path / "b" / "docs"]
    with pagevec.Index(there.url, there.key) as index:
        with pytest.raises(InvalidRequest, match="label 'docs' stands for"):
            index.add(folders)
        assert index.documents() == []


def test_services_that_take_nothing(
    service: Service, filled: Service, embedder: LocalEmbedder, tmp_path: Path
) -> None:
    """No store, no uploads, a wrong key, nobody: each ends the call, with a sentence."""
    store = str(tmp_path / "store")
    pagevec.Index(store, LocalModel(embedder)).close()
    with serving_documents(embedder, store, tmp_path, uploads=False) as (readable, _):
        for url, key, kind, message in (
            (service.url, service.key, NoStore, "pagevec serve --store"),
            (filled.url, "wrong", Unauthorized, "key"),
            (readable.url, readable.key, Forbidden, "--uploads"),
            ("http://127.0.0.1:9", "", Unreachable, "did not answer"),
        ):
            client = pagevec.Client(url, key, patience=0)
            with client, pagevec.Index(client) as index, pytest.raises(kind, match=message):
                index.add(EXAMPLES)


class Stumbling:
    """Answers every other upload with 503, when all of it has come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != "/documents":
            await self._app(scope, receive, send)
            return
        self.uploads += 1
        if self.uploads % 2 == 0:
            await self._app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"later"})


def test_an_upload_is_tried_again(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """The file is read again from its beginning for each attempt."""
    stumbling: list[Stumbling] = []

    def behind(app: ASGIApp) -> Stumbling:
        stumbling.append(Stumbling(app))
        return stumbling[0]

    store, folder = str(tmp_path / "store"), tmp_path / "uploads"
    with serving_documents(embedder, store, folder, behind) as (service, _):
        client = pagevec.Client(service.url, service.key, set_aside_seconds=0)
        with client, pagevec.Index(client) as index:
            report = index.add(EXAMPLES / "annual-report.pdf")
    assert (report.pages_stored, report.failed, stumbling[0].uploads) == (6, (), 2)


def test_an_error_ends_all_of_it(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """After an error of the service no thread of the call goes on asking."""
    store, folder = str(tmp_path / "store"), tmp_path / "uploads"
    with serving_documents(embedder, store, folder, Stumbling) as (service, _):
        client = pagevec.Client(service.url, service.key, patience=0)
        with client, pagevec.Index(client) as index, pytest.raises(ServiceError, match="503"):
            index.add(EXAMPLES)
    for thread in threading.enumerate():
        if thread.name.startswith("pagevec-upload"):
            thread.join(10)
            assert not thread.is_alive()


def test_a_file_is_sent_in_pieces(tmp_path: Path) -> None:
    """A form is as long as it says, in pieces, and not sent to its end where its file changes."""
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(3_000_000))
    form = FileForm.of(file, 'a "quoted"\nname.pdf')
    for _ in range(2):  # each attempt begins anew
        pieces = list(form)
        assert sum(map(len, pieces)) == int(form.headers["Content-Length"])
        assert max(map(len, pieces)) <= 1 << 18
    assert b'filename="a %22quoted%22%0Aname.pdf"' in pieces[0]
    for size in (10, 4_000_000):
        file.write_bytes(bytes(size))
        with pytest.raises(DocumentError, match="changed"):
            list(form)
