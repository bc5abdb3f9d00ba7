"""The life of a document: whatever happens to its file, the store is in step, or says why not."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from pagevec.engine.models.registry import BUNDLED_REVISION
from pagevec.errors import InvalidRequest, InvalidText
from pagevec.ingest.catalogue import Removal
from pagevec.search.index import Index
from pagevec.stores.condense import MEASURED
from pagevec.stores.fingerprint import FINGERPRINT_TEXT
from pagevec.types import ImageInput, ModelInfo, MultiVector, PageKey
from postgres_server import new_database
from stores import morphik_core
from vectors import page, unit_vectors

TEXTS = [f"{bird} {bird} nests here" for bird in ("osprey", "wren", "kite", "jackdaw", "quail")]
PICTURES = (10, 120, 230)  # shades of grey
BROKEN = b"\x00\x01\x02\x03" * 300  # neither a text nor a picture nor a PDF
NAMES = ("a.txt", "b.txt", "c.png", "sub/d.txt", "sub/e.png")
ROOTS = ("docs", "mail")
OF_OTHERS = "morphik-document"
REFUSED = "refused"


class CountingModel:
    """Embeds texts by their letters and pictures by their bytes, and counts them.

    It takes `seconds` for each call, and refuses texts that begin with REFUSED.
    """

    def __init__(self) -> None:
        self.embedded = 0
        self.seconds = 0.0

    def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        self.embedded += len(images)
        return [_unit(np.frombuffer(hashlib.sha512(_bytes(one)).digest(), "u1")) for one in images]

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        for index, text in enumerate(texts):
            if text.startswith(REFUSED):
                raise InvalidText("no such text is embedded", index=index)
        self.embedded += sum(text != FINGERPRINT_TEXT for text in texts)
        time.sleep(self.seconds)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> MultiVector:
        return _unit(np.array([text.lower().count(chr(97 + i % 26)) for i in range(128)]))

    def info(self) -> ModelInfo:
        return ModelInfo("letters", dim=128)

    def close(self) -> None:
        pass

    def __enter__(self) -> "CountingModel":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _bytes(image: ImageInput) -> bytes:
    assert isinstance(image, bytes)
    with Image.open(BytesIO(image)) as opened:
        return opened.convert("RGB").tobytes()[:64]


def _unit(values: "np.ndarray") -> MultiVector:  # type: ignore[type-arg]
    row = np.resize(values, 128).astype(np.float32) + 1e-3
    return (row / np.linalg.norm(row))[None]


def picture(shade: int) -> bytes:
    file = BytesIO()
    Image.new("L", (64, 64), shade).save(file, "PNG")
    return file.getvalue()


CONTENTS = {
    ".txt": [text.encode() for text in TEXTS],
    ".png": [picture(shade) for shade in PICTURES],
}


class Life(RuleBasedStateMachine):
    """Two folders that are added to a store, and what should be in it.

    `last_good` is the content of each document that could be read last; `written` are the files.
    Each folder has a file that nobody touches, so that it is empty only while it is unmounted.
    """

    store_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="pagevec-life-"))
        self.model = CountingModel()
        self.name = new_database(self.store_url) if self.store_url else str(self.home / "store")
        self.index = Index(self.name, self.model)
        self.index._index._store.add([page(OF_OTHERS, 1)])  # without a record: another program's
        self.written: dict[str, bytes] = {}
        self.last_good: dict[str, bytes] = {}
        self.unmounted: dict[str, str] = {}
        for number, root in enumerate(ROOTS):
            (self.home / root / "sub").mkdir(parents=True)
            self._write(f"{root}/anchor.txt", f"{'anchor' * (number + 1)} stays".encode())

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.home)

    # What a user does to files

    @rule(root=st.sampled_from(ROOTS), name=st.sampled_from(NAMES), which=st.integers(0, 4))
    def write(self, root: str, name: str, which: int) -> None:
        """Add a document, edit it or mend it."""
        if root not in self.unmounted:
            contents = CONTENTS[Path(name).suffix]
            self._write(f"{root}/{name}", contents[which % len(contents)])

    @rule(data=st.data())
    def break_one(self, data: st.DataObject) -> None:
        if file := self._choose(data):
            self._write(file, BROKEN + file.encode())

    @rule(data=st.data(), root=st.sampled_from(ROOTS), name=st.sampled_from(NAMES))
    def rename(self, data: st.DataObject, root: str, name: str) -> None:
        """Give a file another name, or move it to the other folder."""
        file, to = self._choose(data), f"{root}/{name}"
        if file and self._is_free_for(to, file):
            (self.home / file).rename(self.home / to)
            self.written[to] = self.written.pop(file)

    @rule(data=st.data(), root=st.sampled_from(ROOTS), name=st.sampled_from(NAMES))
    def copy(self, data: st.DataObject, root: str, name: str) -> None:
        file, to = self._choose(data), f"{root}/{name}"
        if file and self._is_free_for(to, file):
            self._write(to, self.written[file])

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if file := self._choose(data):
            (self.home / file).unlink()
            del self.written[file]

    @rule(root=st.sampled_from(ROOTS), how=st.sampled_from(["moved away", "emptied"]))
    def unmount(self, root: str, how: str) -> None:
        if root not in self.unmounted:
            self.unmounted[root] = how
            (self.home / root).rename(self.home / f"{root} away")
            if how == "emptied":
                (self.home / root).mkdir()

    @precondition(lambda self: self.unmounted)
    @rule(data=st.data())
    def remount(self, data: st.DataObject) -> None:
        root = data.draw(st.sampled_from(sorted(self.unmounted)))
        if self.unmounted.pop(root) == "emptied":
            (self.home / root).rmdir()
        (self.home / f"{root} away").rename(self.home / root)

    # What pagevec does

    @rule()
    def bring_in_step(self) -> None:
        """Add both folders and prune, as `ingest --prune` and each round of `--watch` do."""
        mounted = set(ROOTS) - set(self.unmounted)
        is_there = {file: c for file, c in self.written.items() if self._root(file) in mounted}
        good = {file: content for file, content in is_there.items() if _is_good(content)}
        kept = {
            content
            for file, content in self.last_good.items()
            if file not in good or good[file] == content
        }
        before = self.model.embedded
        roots = [self.home / root for root in ROOTS]
        report = self.index.add([root for root in roots if root.exists()])
        removal = self.index.prune(roots)

        assert self.model.embedded - before <= len(set(good.values()) - kept)
        failed = {outcome.document for outcome in report.failed}
        assert failed == set(is_there) - set(good)
        gone = {
            file for file in self.last_good if self._root(file) in mounted and file not in is_there
        }
        self.last_good = {**{f: c for f, c in self.last_good.items() if f not in gone}, **good}
        self._compare()
        hidden = {self._root(file) for file in self.last_good} - mounted
        assert len(removal.doubtful) == len(hidden)
        for root in hidden:
            assert any(str(self.home / root) in sentence for sentence in removal.doubtful)

    def _compare(self) -> None:
        """The store has exactly the last good versions, each found by its own words."""
        listed = {one.name: one for one in self.index.documents()}
        assert not listed.pop(OF_OTHERS).is_ours
        assert {name for name, one in listed.items() if one.stored} == set(self.last_good)
        for name, content in self.last_good.items():
            document = listed[name]
            assert (document.stored, document.pages, document.complete) == (1, 1, True)
            if self._root(name) not in self.unmounted:
                assert (document.error is None) == (self.written[name] == content)
            if name.endswith(".txt"):
                text = content.decode()
                [hit] = self.index.search(text, k=1, documents=[name])
                assert (hit.text, hit.metadata["file"]) == (text, Path(name).name)
                assert self.index.search(text, k=1)[0].score <= hit.score + 1e-3
            else:
                [stored] = self.index._index._store.fetch([PageKey(name, 1)])
                [embedded] = self.model.embed_images([content])
                kept = MEASURED["bundled", BUNDLED_REVISION] - 1e-3
                assert np.vecdot(stored.token_vectors, embedded).min() >= kept
                self.model.embedded -= 1

    @rule()
    def refuse_to_remove_others(self) -> None:
        """A document that another program wrote cannot be removed."""
        with pytest.raises(InvalidRequest, match="not ingested by pagevec"):
            self.index.remove(OF_OTHERS)

    @invariant()
    def others_are_untouched(self) -> None:
        """Rows of another program stay, whatever happens."""
        assert self.index._index._store.has(OF_OTHERS) == {1}

    def _write(self, file: str, content: bytes) -> None:
        (self.home / file).write_bytes(content)
        self.written[file] = content

    def _choose(self, data: st.DataObject) -> str | None:
        files = [
            file
            for file in sorted(self.written)
            if self._root(file) not in self.unmounted and "anchor" not in file
        ]
        return data.draw(st.sampled_from(files)) if files else None

    def _is_free_for(self, to: str, file: str) -> bool:
        is_of_kind = Path(to).suffix == Path(file).suffix
        return is_of_kind and to not in self.written and self._root(to) not in self.unmounted

    @staticmethod
    def _root(file: str) -> str:
        return file.partition("/")[0]


def _is_good(content: bytes) -> bool:
    return not content.startswith(BROKEN)


def live(store_url: str, examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=examples < 100,
        print_blob=True,
        database=None,
    )
    run_state_machine_as_test(type("_Life", (Life,), {"store_url": store_url}), settings=profile)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Where new stores are made; empty for folders."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return ""


def test_life(store_url: str) -> None:
    """After each `add` and `prune` the store equals the folders, or keeps more and says so."""
    live(store_url, examples=12, steps=30)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_long_life(store_url: str) -> None:
    """What `test_life` says, for many more lives, others each time."""
    live(store_url, examples=25 if store_url else 50, steps=50)


# Single scenes


@pytest.fixture
def model() -> CountingModel:
    return CountingModel()


@pytest.fixture
def index(store_name: str, model: CountingModel) -> Iterator[Index]:
    with Index(store_name, model) as opened:
        yield opened


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "anchor.txt").write_text("anchor stays")
    return folder


def names_in(index: Index) -> list[str]:
    return [one.name for one in index.documents()]


def test_a_rotation(index: Index, model: CountingModel, docs: Path) -> None:
    """`mv log log.1` and a new log: what was embedded as `log` is taken over, not embedded again.

    The name that got other content comes long before the one that has the former content now.
    """
    for number in range(12):
        (docs / f"log{number:02}.txt").write_text(f"{TEXTS[0]} {'x' * number}")
    index.add(docs)
    for number in range(12):
        (docs / f"log{number:02}.txt").rename(docs / f"old{number:02}.txt")
        (docs / f"log{number:02}.txt").write_text(f"{TEXTS[1]} {'x' * number}")
    before = model.embedded
    report = index.add(docs)
    assert model.embedded - before == report.pages_stored == 12
    assert (len(names_in(index)), report.renamed) == (25, ())
    assert {one.same_as for one in report.outcomes if one.document == "docs/old03.txt"} == {
        "docs/log03.txt"
    }


def test_the_same_content_at_once(index: Index, model: CountingModel, docs: Path) -> None:
    """Four files of one content that come together are embedded once, and found four times."""
    model.seconds = 0.3
    for name in "abcd":
        (docs / f"{name}.txt").write_text(TEXTS[2])
    report = index.add(docs)
    assert model.embedded == 2 and report.pages_stored == 2  # and the anchor
    hits = index.search(TEXTS[2], k=4)
    assert sorted((hit.document, hit.text, hit.error) for hit in hits) == [
        (f"docs/{name}.txt", TEXTS[2], None) for name in "abcd"
    ]


def test_the_same_bad_content(index: Index, docs: Path) -> None:
    """Files of one content that cannot be read each have their own error."""
    for name in "abcdefgh":
        (docs / f"{name}.pdf").write_bytes(b"%PDF-1.4 and no more")
    report = index.add(docs)
    assert len(report.failed) == 8
    for outcome in report.failed:
        assert outcome.error is not None and Path(outcome.document).name in outcome.error


def test_a_copy_of_what_a_broken_file_was(index: Index, model: CountingModel, docs: Path) -> None:
    """A copy takes over the last good version of a file that is broken now, but not its error."""
    (docs / "a.txt").write_text(TEXTS[3])
    index.add(docs)
    (docs / "a.txt").write_bytes(BROKEN)
    index.add(docs)
    (docs / "b.txt").write_text(TEXTS[3])
    before = model.embedded
    index.add(docs)
    errors = {one.name: one.error for one in index.documents()}
    assert errors["docs/a.txt"] is not None and errors["docs/b.txt"] is None
    assert model.embedded == before


def test_an_edit_of_which_no_page_can_be_embedded(index: Index, docs: Path) -> None:
    """The last good version stays until a page of the new one is stored, and is marked."""
    (docs / "a.txt").write_text(TEXTS[0])
    index.add(docs)
    (docs / "a.txt").write_text(f"{REFUSED} by the model")
    [failed] = index.add(docs).failed
    assert failed.error is not None and "0 of 1 pages" in failed.error
    [hit] = index.search(TEXTS[0], k=1)
    assert (hit.text, hit.error) == (TEXTS[0], failed.error)
    (docs / "a.txt").write_text(TEXTS[1])
    assert index.add(docs).failed == ()
    [hit] = index.search(TEXTS[1], k=1)
    assert (hit.text, hit.error, len(names_in(index))) == (TEXTS[1], None, 2)


def test_a_rename_while_its_folder_is_unmounted(index: Index, docs: Path) -> None:
    """A copy of a document elsewhere is no rename of one whose folder is gone or empty."""
    (docs / "a.txt").write_text(TEXTS[0])
    index.add(docs)
    docs.rename(docs.with_name("away"))
    docs.mkdir()
    other = docs.with_name("other")
    other.mkdir()
    (other / "a.txt").write_text(TEXTS[0])
    report = index.add([docs, other])
    assert (report.renamed, report.outcomes[0].same_as) == ((), "docs/a.txt")
    assert names_in(index) == ["docs/a.txt", "docs/anchor.txt", "other/a.txt"]


def test_prune_keeps_to_its_paths(index: Index, docs: Path) -> None:
    """Documents of other folders stay; so do neighbours of a file that is named itself."""
    other = docs.with_name("docs2")
    other.mkdir()
    for folder in (docs, other):
        for name in "abc":
            (folder / f"{name}.txt").write_text(f"{TEXTS[0]} {folder.name} {name}")
    index.add([docs, other])
    for folder in (docs, other):
        for name in "ab":
            (folder / f"{name}.txt").unlink()
    assert index.prune(docs / "a.txt") == Removal(("docs/a.txt",))
    assert index.prune(docs) == Removal(("docs/b.txt",))
    assert names_in(index) == [
        "docs/anchor.txt", "docs/c.txt", "docs2/a.txt", "docs2/b.txt", "docs2/c.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("link_to", ["file", "folder"])
def test_links_are_followed_where_they_are_named(index: Index, docs: Path, link_to: str) -> None:
    """A link to a file or a folder is added, kept while its target is there, and pruned after."""
    target = docs.with_name("elsewhere")
    target.mkdir()
    (target / "a.txt").write_text(TEXTS[0])
    (target / "b.txt").write_text(TEXTS[1])
    link = docs / ("link.txt" if link_to == "file" else "link")
    link.symlink_to(target / "a.txt" if link_to == "file" else target)
    index.add(link)
    before = names_in(index)
    assert len(before) == (1 if link_to == "file" else 2)
    assert index.prune(link) == Removal(())
    if link_to == "file":
        link.unlink()
        assert index.prune(link) == Removal(("docs/link.txt",))
        return
    target.rename(docs.with_name("moved"))
    removal = index.prune(link)
    assert removal.removed == () and "2 documents whose files are missing" in removal.doubtful[0]
    assert names_in(index) == before


def test_a_name_that_another_program_has(index: Index, docs: Path) -> None:
    """Pages that another program wrote under a document's name are neither used nor removed."""
    index._index._store.add([page("docs/a.txt", 1)])
    (docs / "a.txt").write_text(TEXTS[0])
    [failed] = index.add(docs).failed
    assert failed.error is not None and "another program wrote" in failed.error
    (docs / "a.txt").unlink()
    assert index.prune(docs) == Removal(())
    [stored] = index._index._store.fetch([PageKey("docs/a.txt", 1)])
    np.testing.assert_allclose(stored.vectors, page("docs/a.txt", 1).vectors, atol=1e-2)
    assert [one.is_ours for one in index.documents() if one.name == "docs/a.txt"] == [False]


def test_rows_of_morphik_core(postgres: str, model: CountingModel, docs: Path) -> None:
    """Rows that morphik-core itself wrote are listed as its own, searched, refused and kept."""
    name = new_database(postgres)
    with Index(name, model) as index, psycopg.connect(name, autocommit=True) as connection:
        for chunk in (0, 1):
            morphik_core.insert(connection, "6f1c-uuid", chunk, unit_vectors(3, chunk))
        index.add(docs)
        listed = {one.name: one for one in index.documents()}
        assert (listed["6f1c-uuid"].stored, listed["6f1c-uuid"].is_ours) == (2, False)
        assert listed["docs/anchor.txt"].is_ours
        assert len(index.search("anchor", documents=["6f1c-uuid"])) == 2
        with pytest.raises(InvalidRequest, match="not ingested by pagevec"):
            index.remove("6f1c-uuid")
        (docs / "anchor.txt").unlink()
        (docs / "b.txt").write_text("another")
        index.add(docs)
        index.prune([docs, docs.parent, Path("/")])
        rows = connection.execute("SELECT DISTINCT document_id FROM multi_vector_embeddings")
        assert {document for (document,) in rows} == {"6f1c-uuid", "docs/b.txt"}


def test_two_folders_of_one_name(index: Index, tmp_path: Path) -> None:
    """Two folders of one name in one call are refused before anything is stored."""
    for above in ("mine", "yours"):
        (tmp_path / above / "reports").mkdir(parents=True)
        (tmp_path / above / "reports" / "a.txt").write_text(f"{above} {TEXTS[0]}")
    with pytest.raises(InvalidRequest, match=r"the label 'reports' stands for .*mine.*--as LABEL"):
        index.add([tmp_path / "mine" / "reports", tmp_path / "yours" / "reports"])
    assert names_in(index) == []
