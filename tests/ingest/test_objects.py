"""Documents in object stores, with real filesystems of fsspec that need no network.

`tests/ingest/test_s3.py` has a server of S3 and kills.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_life import CountingModel

from conftest import EXAMPLES, pagevec, serving_documents
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError, InvalidRequest, ObjectError
from pagevec.images import DEFAULT_LIMITS
from pagevec.ingest import objects
from pagevec.ingest.addresses import Address
from pagevec.ingest.sources import find_documents
from pagevec.local import LocalModel
from pagevec.search.index import Index

OLD = timedelta(hours=1)


class Shaky(MemoryFileSystem):
    """A filesystem in memory that counts what is fetched, and fails as a test wants it to."""

    protocol = "shaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fetched: ClassVar[list[str]] = []
    on_list: ClassVar[Callable[[str], object]] = staticmethod(lambda path: None)
    on_fetch: ClassVar[Callable[[str], object]] = staticmethod(lambda path: None)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).replace("shaky://", "memory://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        Shaky.on_list(path)
        return super().ls(path, detail, **kwargs)

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        Shaky.fetched.append(rpath)
        Shaky.on_fetch(rpath)
        super().get_file(rpath, lpath, **kwargs)


@pytest.fixture(autouse=True)
def shaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Shaky]]:
    fsspec.register_implementation("shaky", Shaky, clobber=True)
    monkeypatch.setattr(objects, "_PAUSE", 0.01)
    yield Shaky
    for name in ("store", "fetched"):
        getattr(Shaky, name).clear()
    Shaky.pseudo_dirs[:] = [""]
    Shaky.on_list = Shaky.on_fetch = staticmethod(lambda path: None)  # type: ignore[assignment]


def put(path: str, content: bytes, age: timedelta = OLD) -> None:
    """Write an object, as if it were done a while ago: a recent time tells no version."""
    fs = Shaky(skip_instance_cache=True)
    fs.pipe_file(f"/{path}", content)
    Shaky.store[f"/{path}"].created = datetime.now(UTC) - age


def remove(path: str) -> None:
    del Shaky.store[f"/{path}"]


def fetched() -> list[str]:
    """Return the names of what was fetched since the last time."""
    names = sorted(Path(path).name for path in Shaky.fetched)
    Shaky.fetched.clear()
    return names


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "store", CountingModel()) as opened:
        yield opened


def test_objects_are_found_as_files_are(tmp_path: Path) -> None:
    """The same tree, on disk and as objects: the same documents, and the same is passed over."""
    files = {
        "a.txt": b"a", "sub/deep/b.PNG": b"b", "sub/~$c.docx": b"c", ".hidden/d.txt": b"d",
        ".e.txt": b"e", "f.xyz": b"f", "g": b"g", "store/pages.sqlite3": b"h", "store/i.txt": b"i",
        "\u00e9 \u00fc.md": b"j",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
        put(f"in/{name}", content)
    here, there = find_documents([tmp_path / "in"]), find_documents([Address.parse("shaky://in/")])
    assert sorted(str(one.below) for one in there.documents) == sorted(
        str(one.below) for one in here.documents
    )
    assert len(there.documents) == 3
    assert +there.passed_over == +here.passed_over
    assert there.describe() == here.describe()


def test_from_an_address_to_an_answer(index: Index, tmp_path: Path) -> None:
    """A PDF, a picture and a text go through the readers of files: their pages are the same.

    A hit has its name and its small picture; its document is known by its address.
    """
    for name in ("annual-report.pdf", "receipt.png", "notes.txt"):
        put(f"bucket/examples/{name}", (EXAMPLES / name).read_bytes())
    assert not index.add("shaky://bucket/examples").failed
    with Index(tmp_path / "here", CountingModel()) as on_disk:
        on_disk.add([EXAMPLES / name for name in ("annual-report.pdf", "receipt.png", "notes.txt")])
        query = "fares of a day ticket"
        hits, expected = index.search(query, k=20), on_disk.search(query, k=20)
        assert [(one.document, one.page, one.score) for one in hits] == [
            (one.document, one.page, pytest.approx(one.score)) for one in expected
        ]
        [found] = (one for one in hits if one.document == "examples/receipt.png")
        [file] = (one for one in expected if one.document == "examples/receipt.png")
        assert found.path == Path("examples/receipt.png")
        assert found.picture().width < file.picture().width
    assert index.search(query, documents=["shaky://bucket/examples"])
    known = {one.name: one for one in index.documents()}["examples/receipt.png"]
    assert (known.address, known.path) == ("shaky://bucket/examples/receipt.png", None)
    assert index.remove("shaky://bucket/examples/receipt.png") == 1
    assert not [one for one in index.search(query, k=20) if one.document == known.name]


def test_pictures_of_pages_over_http(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """A service shows the small picture of an object's page, says why, and fetches nothing.

    It tells nobody the address.
    """
    put("bucket/examples/receipt.png", (EXAMPLES / "receipt.png").read_bytes())
    store = str(tmp_path / "store")
    with Index(store, LocalModel(embedder, DEFAULT_LIMITS)) as index:
        assert index.add("shaky://bucket/examples").pages_stored == 1
    fetched()
    with (
        serving_documents(embedder, store, tmp_path / "uploads") as (service, _),
        service.client() as client,
    ):
        [document] = client.get("/documents").json()["documents"]
        picture = client.get(f"/documents/{document['id']}/pages/1/image")
        assert picture.headers["Pagevec-Image"] == "thumbnail"
        assert "not on this machine" in picture.headers["Pagevec-Image-Reason"]
        assert "shaky" not in str(document) + str(picture.headers)
    assert fetched() == []


def test_only_what_changed_is_fetched(store_name: str) -> None:
    """An object of the same version is not fetched again, a changed one is, and embedded again.

    The hash decides on what was fetched: the same content with another time embeds nothing.
    """
    model = CountingModel()
    for name in ("a", "b", "c"):
        put(f"bucket/{name}.txt", f"text {name}".encode())
    with Index(store_name, model) as index:
        assert index.add("shaky://bucket").pages_stored == 3
        assert fetched() == ["a.txt", "b.txt", "c.txt"]
        assert len(index.add("shaky://bucket").skipped) == 3
        assert fetched() == []
        put("bucket/a.txt", b"another text", OLD / 2)
        put("bucket/b.txt", b"text b", OLD / 2)
        before = model.embedded
        report = index.add("shaky://bucket")
        assert (report.pages_stored, len(report.skipped), model.embedded) == (1, 2, before + 1)
        assert fetched() == ["a.txt", "b.txt"]
        assert len(index.add("shaky://bucket").skipped) == 3
        assert fetched() == []


def test_a_time_that_tells_nothing(index: Index) -> None:
    """An object that was written just now may change within the same tick: it is fetched again."""
    put("bucket/a.txt", b"text a", timedelta())
    for _ in range(2):
        index.add("shaky://bucket")
        assert fetched() == ["a.txt"]


def test_renamed_and_the_same_content(index: Index) -> None:
    """A renamed object keeps its pages; a copy takes over those of the other."""
    put("bucket/a.txt", b"text a")
    index.add("shaky://bucket")
    put("bucket/copy.txt", b"text a")
    [copied] = (one for one in index.add("shaky://bucket").outcomes if one.same_as)
    assert (copied.document, copied.same_as) == ("bucket/copy.txt", "bucket/a.txt")
    put("bucket/new.txt", b"text a")
    remove("bucket/a.txt")
    report = index.add("shaky://bucket")
    assert (report.pages_stored, report.renamed) == (0, ("bucket/a.txt",))
    fetched()
    assert len(index.add("shaky://bucket").skipped) == 2
    assert fetched() == []


def test_pruned(index: Index) -> None:
    """Deleted objects are followed; those of other addresses, and files, stay."""
    for name in ("a.txt", "sub/b.txt", "sub/c.txt"):
        put(f"bucket/in/{name}", f"text {name}".encode())
    put("bucket/other/d.txt", b"text d")
    index.add(["shaky://bucket/in", "shaky://bucket/other", EXAMPLES / "notes.txt"])
    for name in ("in/sub/b.txt", "other/d.txt"):
        remove(f"bucket/{name}")
    put("bucket/other/e.txt", b"no document yet")
    removal = index.prune("shaky://bucket/in")
    assert (removal.removed, removal.doubtful) == (("in/sub/b.txt",), ())
    assert index.prune("shaky://bucket/other/d.txt").removed == ("other/d.txt",)
    assert [one.name for one in index.documents()] == [
        "examples/notes.txt", "in/a.txt", "in/sub/c.txt",
    ]  # fmt: skip


def deny(place: str) -> Callable[[str], object]:
    def refuse(path: str) -> None:
        if path.strip("/") == place:
            raise PermissionError("you may not")

    return refuse


def test_nothing_is_pruned_in_doubt(index: Index, shaky: type[Shaky]) -> None:
    """A listing that fails, also deep in it, or is empty, removes nothing, and the reason is told.

    Nor does one that lacks an object which is there all the same.
    """
    for name in ("a.txt", "sub/b.txt"):
        put(f"bucket/in/{name}", b"text")
    index.add("shaky://bucket/in")
    kept = dict(Shaky.store)
    remove("bucket/in/sub/b.txt")
    for place in ("bucket/in", "bucket/in/sub"):
        put("bucket/in/sub/other.txt", b"no document")
        shaky.on_list = staticmethod(deny(place))  # type: ignore[assignment]
        removal = index.prune("shaky://bucket/in")
        assert removal.removed == ()
        assert "access is denied" in removal.doubtful[0]
        with pytest.raises(ObjectError, match="access is denied"):
            index.add("shaky://bucket/in")
    shaky.on_list = staticmethod(lambda path: None)  # type: ignore[assignment]
    Shaky.store.clear()
    removal = index.prune("shaky://bucket/in")
    assert removal.removed == ()
    assert "nothing" in removal.doubtful[0]
    with pytest.raises(InvalidRequest, match="there is nothing at shaky://bucket/in"):
        index.add("shaky://bucket/in")
    Shaky.store.update(kept)

    def forget(path: str) -> None:
        Shaky.store.pop("/bucket/in/sub/b.txt", None)
        Shaky.store.pop("/bucket/in/a.txt", None)
        put("bucket/in/other.txt", b"no document")

    shaky.on_list = staticmethod(forget)  # type: ignore[assignment]
    info = Shaky.info
    try:
        Shaky.info = lambda self, path, **more: (  # type: ignore[method-assign]
            {"name": path, "type": "file", "size": 4}
            if path.endswith("b.txt")
            else info(self, path)
        )
        assert index.prune("shaky://bucket/in").removed == ("in/a.txt",)
    finally:
        Shaky.info = info  # type: ignore[method-assign]


def test_a_fetch_that_fails(
    index: Index, shaky: type[Shaky], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs its document, is tried again, and names the reason without secrets; so at a hang.

    The next run fetches it.
    """
    monkeypatch.setenv("SHAKY_SECRET", "a-secret-of-the-environment")
    for name in ("bad", "good", "stumbles", "hangs"):
        put(f"bucket/{name}.txt", f"text {name}".encode())
    monkeypatch.setattr(objects, "_ASK_SECONDS", 0.3)
    monkeypatch.setattr(objects, "_SLOWEST", 1 << 30)
    stumbled = []

    def fail(path: str) -> None:
        if "bad" in path:
            raise OSError("a-secret-of-the-environment, password=abcdef is wrong")
        if "stumbles" in path and not stumbled:
            stumbled.append(path)
            raise ConnectionResetError("the line broke")
        if "hangs" in path:
            time.sleep(2)

    shaky.on_fetch = staticmethod(fail)  # type: ignore[assignment]
    report = index.add("shaky://bucket")
    assert report.pages_stored == 2
    failed = {one.document: one for one in report.failed}
    assert set(failed) == {"bucket/bad.txt", "bucket/hangs.txt"}
    assert all(one.is_temporary for one in failed.values())
    assert failed["bucket/bad.txt"].error == (
        "shaky://bucket/bad.txt cannot be read: ***, password=*** is wrong"
    )
    assert "no answer within 0.3" in str(failed["bucket/hangs.txt"].error)
    assert Shaky.fetched.count("/bucket/bad.txt") == 3
    shaky.on_fetch = staticmethod(lambda path: None)  # type: ignore[assignment]
    time.sleep(2)
    fetched()
    assert index.add("shaky://bucket").pages_stored == 2
    assert fetched() == ["bad.txt", "hangs.txt"]


def test_an_object_that_changes(index: Index, shaky: type[Shaky]) -> None:
    """What changes while it is fetched is fetched again; what never rests is an error."""
    put("bucket/a.txt", b"first")
    changes = iter([b"second", b"third!", b"fourth", b"fifth!", b"sixth!"])
    shaky.on_fetch = staticmethod(lambda path: put("bucket/a.txt", next(changes)))  # type: ignore[assignment]
    [outcome] = index.add("shaky://bucket").outcomes
    assert "changed while it was fetched" in str(outcome.error)
    shaky.on_fetch = staticmethod(lambda path: None)  # type: ignore[assignment]
    index.add("shaky://bucket")
    assert index.search("sixth")[0].text in ("fourth", "fifth!", "sixth!")


def test_room_on_the_disk(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object waits for room until those before it are gone; one that never fits is an error."""
    usage = objects.shutil.disk_usage("/")
    room = [objects._FREE_BYTES + 15]

    def disk_usage(_path: str) -> Any:
        return usage._replace(free=room[0])

    monkeypatch.setattr(objects.shutil, "disk_usage", disk_usage)
    for name in ("a", "b", "c"):
        put(f"bucket/{name}.txt", f"ten bytes{name}".encode())
    report = index.add("shaky://bucket")
    assert report.pages_stored == 3
    put("bucket/large.txt", b"twenty bytes are here")
    [failed] = index.add("shaky://bucket").failed
    assert "has 21 bytes" in str(failed.error)
    assert "TMPDIR" in str(failed.error)


def test_names(index: Index, tmp_path: Path) -> None:
    """Labels, single objects, a clash of labels, and a prefix that has moved, by its versions."""
    put("bucket/a.txt", b"text a")
    put("bucket/in/b.txt", b"text b")
    index.add("shaky://bucket/in", label="mine")
    index.add("shaky://bucket/a.txt")
    index.add("shaky://bucket")
    assert [one.name for one in index.documents()] == ["bucket/a.txt", "mine/b.txt"]
    put("else/where/in/c.txt", b"text c")
    with pytest.raises(InvalidRequest, match="give this folder another label"):
        index.add("shaky://else/where/in", label="mine")
    put("moved/in/b.txt", b"text b")
    Shaky.store["/moved/in/b.txt"].created = Shaky.store["/bucket/in/b.txt"].created
    fetched()
    [outcome] = index.add("shaky://moved/in", label="mine").outcomes
    assert (outcome.document, outcome.skipped, fetched()) == ("mine/b.txt", True, [])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "d.txt").write_text("text d")
    with pytest.raises(InvalidRequest, match="shaky://moved/in"):
        index.add(tmp_path / "mine")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("file:///etc/hosts.txt", "give the path of a file itself: /etc/hosts.txt"),
        ("http://127.0.0.1:9/a.pdf", "not read from the web"),
        ("https://example.org/a.pdf", "not read from the web"),
        ("zip://a.pdf::s3://bucket/b.zip", "addresses inside others"),
        ("ftp://me:secret@host/in", "would remember the password"),
        ("shaky://", "expected an address"),
        ("nowhere://a/b", "nowhere"),
        ("shaky://bucket/nothing", "there is nothing at shaky://bucket/nothing"),
        ("shaky://bucket/a.xyz", "unsupported file type '.xyz'"),
    ],
)
def test_addresses_that_are_refused(address: str, said: str, index: Index) -> None:
    """Each with the reason, before anything is stored."""
    put("bucket/a.xyz", b"text")
    with pytest.raises(InvalidRequest) as refused:
        index.add([EXAMPLES / "notes.txt", address])
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
    assert index.documents() == []


def test_a_missing_package(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fsspec names the package of a scheme; where fsspec itself is missing, the extra is named."""
    with pytest.raises(ConfigurationError, match="s3fs"):
        index.add("s3://bucket")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigurationError, match=r"pagevec\[fsspec\]"):
        index.add("shaky://bucket")


def test_typed_at_the_command_line(tmp_path: Path) -> None:
    """Mistakes end with exit code 2 and one sentence, before a service is asked."""
    for arguments, said in [
        (["file:///etc/hosts.txt"], "give the path"),
        (["https://example.org/a.pdf"], "not read from the web"),
        (["memory://bucket", "--watch"], "--watch needs files and folders"),
    ]:
        done = pagevec("ingest", *arguments, "--url", "http://127.0.0.1:9", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_secrets_are_in_no_log(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    """The log of an ingestion has the addresses of objects and nothing of the environment."""
    caplog.set_level(logging.DEBUG)
    put("bucket/a.txt", b"text a")
    index.add("shaky://bucket")
    assert "bucket/a.txt" in caplog.text
