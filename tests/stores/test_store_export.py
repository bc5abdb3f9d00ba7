"""`pagevec export`: stores of all kinds into each other, exactly, and on after every stop."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest

from conftest import new_store_name, pagevec
from pagevec.errors import InvalidRequest, OtherModel
from pagevec.grid import PatchGrid
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.export import export
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import DocumentRecord, Page, PageKey
from vectors import page, unit_vectors

EXPORT = """
import sys
from pagevec.stores import open_store
from pagevec.stores.export import export
with open_store(sys.argv[1], create=False) as source, open_store(sys.argv[2]) as target:
    print("ready", flush=True)
    export(source, target, lambda done, total: print(done, flush=True))
"""


@pytest.fixture(params=["postgres", "qdrant-embedded", "qdrant-server"])
def between(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store of another kind than SQLite."""
    return new_store_name(request, tmp_path)


def fill(name: str, pages: int = 20, documents: int = 2) -> str:
    """Make a store with everything that one can hold."""
    with open_store(name) as store:
        store.save_fingerprint(unit_vectors(5, 7))
        for document in (f"reports/{number}.pdf" for number in range(documents)):
            store.add([full_page(document, number) for number in range(1, pages + 1)])
            store.ledger.write(DocumentRecord(document, f"hash of {document}", pages, True))
        store.add([page("of another program", 1), page("cut off", 2)])
        store.ledger.write(DocumentRecord("cut off", "11", 3))
        store.ledger.write(DocumentRecord("failed", "22", None, error="it is encrypted"))
        store.ledger.set_label("reports", "/srv/Büro/reports")
    return name


def full_page(document: str, number: int) -> Page:
    metadata = {"year": 2024, "ratio": 1.0, "tags": ["a", None], "of'\"ice": "Köln", "n": {"b": 1}}
    return page(
        document,
        number,
        metadata=metadata,
        text=f"Grüße {number}\n",
        thumbnail=bytes([255, 0, number % 256]),
        grid=PatchGrid(1, 2, number % 2),
    )


def assert_same(name: str, other: str) -> None:
    """Compare two stores page by page, with their ledgers, labels and fingerprints."""
    with open_store(name, create=False) as one, open_store(other, create=False) as two:
        assert one.documents() == two.documents()
        assert one.ledger.records() == two.ledger.records()
        assert one.ledger.labels() == two.ledger.labels()
        np.testing.assert_array_equal(one.fingerprint(), two.fingerprint())
        keys = keys_of(one)
        for left, right in zip(one.fetch(keys), two.fetch(keys), strict=True):
            assert_same_page(left, right)


def keys_of(store: Store) -> list[PageKey]:
    return [PageKey(one, number) for one in store.documents() for number in store.has(one)]


def assert_same_page(left: Page, right: Page) -> None:
    assert left.key == right.key
    assert repr(left.metadata) == repr(right.metadata)
    assert (left.text, left.thumbnail, left.grid) == (right.text, right.thumbnail, right.grid)
    np.testing.assert_array_equal(left.vectors, right.vectors)


def test_there_and_back(between: str, tmp_path: Path) -> None:
    """SQLite to every other kind and back to SQLite: equal page by page, and again for nothing."""
    source, back = fill(str(tmp_path / "source")), str(tmp_path / "back")
    for one, other in ((source, between), (between, back)):
        with open_store(one, create=False) as old, open_store(other) as new:
            assert export(old, new).copied == 42
            again = export(old, new)
            assert (again.copied, again.pages, again.documents) == (0, 42, 5)
    assert_same(source, between)
    assert_same(source, back)


def test_an_export_goes_on(tmp_path: Path) -> None:
    """What an earlier export left behind is kept, what is missing comes, and progress is told."""
    source, target = fill(str(tmp_path / "source")), str(tmp_path / "target")
    with open_store(source) as old, open_store(target) as new:
        new.save_fingerprint(unit_vectors(5, 7))
        new.add(old.fetch([PageKey("reports/0.pdf", number) for number in range(1, 8)]))
        told: list[tuple[int, int]] = []
        assert export(old, new, lambda *done: told.append(done)).copied == 42 - 7
        assert told[0] == (0, 42)
        assert told[-1] == (42, 42)
        assert told == sorted(told)
    assert_same(source, target)


def test_others_documents_stay(tmp_path: Path) -> None:
    """A target of the same model keeps its own documents, and two stores become one."""
    source, target = fill(str(tmp_path / "source")), str(tmp_path / "target")
    with open_store(target) as new:
        new.save_fingerprint(unit_vectors(5, 7))
        new.add([page("own", 1)])
        new.ledger.write(DocumentRecord("own", "00", 1, True))
        with open_store(source) as old:
            export(old, new)
        assert (new.count(), new.has("own")) == (43, {1})


def test_another_model_is_refused(tmp_path: Path) -> None:
    """A target with pages of another model, or of an unknown one, is refused and left as it is."""
    with open_store(fill(str(tmp_path / "source"))) as old:
        for name, fingerprint in (("other", unit_vectors(5, 8)), ("unknown", None)):
            with open_store(str(tmp_path / name)) as new:
                if fingerprint is not None:
                    new.save_fingerprint(fingerprint)
                new.add([page("own", 1)])
                with pytest.raises(OtherModel):
                    export(old, new)
                assert (new.count(), len(new.ledger.records())) == (1, 0)


def test_other_documents_are_refused(tmp_path: Path) -> None:
    """Another document or folder of the same name is named, and nothing is copied."""
    source = fill(str(tmp_path / "source"))
    with open_store(source) as old, open_store(str(tmp_path / "target")) as new:
        new.ledger.write(DocumentRecord("reports/1.pdf", "another hash"))
        with pytest.raises(InvalidRequest, match=r"other documents.*'reports/1\.pdf'"):
            export(old, new)
        new.delete("reports/1.pdf")
        new.ledger.set_label("reports", "/elsewhere")
        with pytest.raises(InvalidRequest, match="labelled 'reports' are in /srv/Büro/reports"):
            export(old, new)
        assert new.count() == 0


def test_a_page_that_differs(tmp_path: Path) -> None:
    """A page that is another one in the target fails its document in words, and no other one."""
    source, target = fill(str(tmp_path / "source")), str(tmp_path / "target")
    with open_store(source) as old, open_store(target) as new:
        new.save_fingerprint(unit_vectors(5, 7))
        new.add([page("reports/0.pdf", 3, seed=1)])
        exported = export(old, new)
        assert list(exported.failed) == ["reports/0.pdf"]
        assert "page 3 has other vectors" in exported.failed["reports/0.pdf"]
        assert new.ledger.record("reports/0.pdf") is None
        assert len(new.has("reports/1.pdf")) == 20
        new.delete("reports/0.pdf")
        assert not export(old, new).failed
    assert_same(source, target)


def test_a_leased_document(tmp_path: Path) -> None:
    """A document that a worker is ingesting into the target is left to it."""
    with (
        open_store(fill(str(tmp_path / "source"))) as old,
        open_store(str(tmp_path / "target")) as new,
    ):
        new.ledger.lease("reports/0.pdf", "a worker", 60)
        assert "another worker" in export(old, new).failed["reports/0.pdf"]
        assert new.has("reports/0.pdf") == frozenset()


def test_a_damaged_page(tmp_path: Path) -> None:
    """A page that the source cannot read is named, and its document not taken for complete."""
    source = fill(str(tmp_path / "source"))
    with open_store(source) as old, open_store(str(tmp_path / "target")) as new:
        with old._database.writing() as connection:  # type: ignore[attr-defined]
            connection.execute(
                "UPDATE contents SET vectors = x'00' WHERE page ="
                " (SELECT id FROM pages WHERE document = 'reports/0.pdf' AND number = 5)"
            )
        failed = export(old, new).failed
        assert "page 5 cannot be read in the source" in failed["reports/0.pdf"]
        assert new.ledger.record("reports/0.pdf") is None
        assert len(new.has("reports/1.pdf")) == 20


def test_what_a_target_cannot_keep(tmp_path: Path) -> None:
    """Vectors that are kept in int8 do not fit into float16 exactly: the target stays without."""
    with SqliteStore(tmp_path / "source", "int8") as old:
        old.add([page("a", 1)])
        with open_store(str(tmp_path / "target")) as new:
            assert "cannot keep the vectors of page 1" in export(old, new).failed["a"]
            assert new.count() == 0


def test_pages_of_signs(postgres: str, tmp_path: Path) -> None:
    """Pages of morphik-core are sign bits alone, which all stores keep as they are."""
    from postgres_server import new_database

    name, target = new_database(postgres), str(tmp_path / "target")
    with open_store(name) as old, open_store(target) as new:
        old.add([page("a", 1)])
        with psycopg.connect(name) as connection:
            connection.execute("DELETE FROM pagevec_pages")
        assert not export(old, new).failed
        [left], [right] = old.fetch([PageKey("a", 1)]), new.fetch([PageKey("a", 1)])
        np.testing.assert_array_equal(left.vectors > 0, right.vectors > 0)


def test_the_command(tmp_path: Path) -> None:
    """The command says what it did; a second one copies nothing; mistakes are errors in words."""
    source, target = fill(str(tmp_path / "source")), f"qdrant:{tmp_path / 'target'}"
    done = pagevec("export", source, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"exported: 42 pages of 5 documents, 42 pages of them now, to {target}\n"
    assert "0 pages of them now" in pagevec("export", source, target).stdout
    for arguments, code, said in (
        ((tmp_path / "none", target), 3, "there is no store at"),
        ((source, "nosuch:thing"), 2, "no stores of the scheme nosuch"),
        (("http://127.0.0.1:9", target), 2, "is a service"),
        ((tmp_path / "target", target), 2, f"its name is qdrant:{tmp_path / 'target'}"),
    ):
        refused = pagevec("export", *arguments)
        assert refused.returncode == code, refused.stderr
        assert said in refused.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("between", ["qdrant-embedded", "qdrant-server"], indirect=True)
def test_killed_and_started_again(between: str, tmp_path: Path) -> None:
    """Killed again and again on the way to Qdrant and back: equal page by page, nothing twice."""
    source, back = fill(str(tmp_path / "source"), pages=150, documents=4), str(tmp_path / "back")
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    for one, other in ((source, between), (between, back)):
        for kill in range(4):
            # At a moment that comes later each time, so that all parts of the way are met.
            export_and_kill(one, other, wanted=120 * kill, delay=0.2 * chance.random())
        export_and_kill(one, other, wanted=None)
    assert_same(source, between)
    assert_same(source, back)
    with open_store(between) as store:
        assert store.count() == 602


def export_and_kill(source: str, target: str, wanted: int | None, delay: float = 0) -> None:
    """Export in a process that is killed once `wanted` pages are done; None: it ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, source, target], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if wanted is None:
        process.communicate(timeout=300)
        assert process.returncode == 0
        return
    process.stdout.readline()
    while int(process.stdout.readline()) < wanted:
        pass
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
