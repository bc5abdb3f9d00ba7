"""Documents are named by their place below a labelled folder, wherever that folder stands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from conftest import Service
from pagevec.client import Client
from pagevec.errors import InvalidRequest
from pagevec.ingest.names import name_documents, name_unstored
from pagevec.ingest.sources import find_documents
from pagevec.search.index import Index
from pagevec.stores import open_store
from pagevec.stores.base import Store
from postgres_server import new_database

FORMER = Path(__file__).parents[1] / "former"


def write(folder: Path, **files: str) -> Path:
    """Write text files, named without their ending, into a new folder."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.key) as opened:
        yield opened


@pytest.fixture
def index(store_name: str, client: Client) -> Iterator[Index]:
    with Index(store_name, client) as opened:
        yield opened


def names_in(index: Index) -> list[str]:
    return [record.name for record in index.documents()]


def test_names_are_below_the_folder(index: Index, tmp_path: Path) -> None:
    """A document of a folder is LABEL/path, a file alone is called after the folder it is in."""
    reports = write(tmp_path / "reports", a="one")
    write(reports / "2024", b="two")
    lone = write(tmp_path / "desk", c="three") / "c.txt"
    index.add([reports, lone])
    assert names_in(index) == ["desk/c.txt", "reports/2024/b.txt", "reports/a.txt"]


def test_a_label_of_ones_own(index: Index, tmp_path: Path) -> None:
    """With a label the folder keeps it, also when it is added again without."""
    folder = write(tmp_path / "reports", a="one")
    index.add(folder, label="annual")
    (folder / "b.txt").write_text("two")
    report = index.add(folder)
    assert names_in(index) == ["annual/a.txt", "annual/b.txt"]
    assert (report.pages_stored, len(report.skipped)) == (1, 1)


def test_a_file_has_one_name(index: Index, tmp_path: Path) -> None:
    """Added through its folder, through a folder above and alone, a file is one document."""
    reports = write(tmp_path / "archive" / "reports", a="one")
    index.add(reports)
    index.add(tmp_path / "archive")
    index.add(reports / "a.txt")
    assert names_in(index) == ["reports/a.txt"]


def test_a_folder_that_has_moved(index: Index, tmp_path: Path) -> None:
    """A folder that was moved, and changed a little, keeps its names: nothing is stored twice."""
    folder = write(tmp_path / "disk" / "reports", a="one", b="two", c="three")
    index.add(folder)
    moved = shutil.move(folder, tmp_path / "reports")
    (moved / "c.txt").write_text("three, edited")
    report = index.add(moved)
    assert names_in(index) == ["reports/a.txt", "reports/b.txt", "reports/c.txt"]
    assert (report.pages_stored, len(report.skipped)) == (1, 2)
    [hit] = index.search("one", k=1, documents=[moved / "a.txt"])
    assert hit.path == moved / "a.txt"


def test_another_folder_of_the_same_name(index: Index, tmp_path: Path) -> None:
    """Another folder of that name stops the ingestion before anything is stored, unless labelled.

    A file that both have does not make them the same folder.
    """
    index.add(write(tmp_path / "mine" / "reports", a="one", b="two", licence="the same"))
    yours = write(tmp_path / "yours" / "reports", a="another", licence="the same")
    with pytest.raises(InvalidRequest, match=r"knows the label 'reports' from .*mine.*--as LABEL"):
        index.add(yours)
    assert len(index.documents()) == 3
    index.add(yours, label="yours")
    assert "yours/a.txt" in names_in(index) and len(index.documents()) == 5


@pytest.mark.parametrize("label", ["a/b", "..", "."])
def test_labels_that_cannot_be(index: Index, tmp_path: Path, label: str) -> None:
    """A label is one part of a name."""
    with pytest.raises(InvalidRequest, match="cannot be a label"):
        index.add(write(tmp_path / "reports", a="one"), label=label)


def test_paths_stand_for_names(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document is searched and removed by its name, or by a path that leads to its file."""
    folder = write(tmp_path / "reports", a="one", b="two")
    index.add(folder)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for given in ("reports/a.txt", folder / "a.txt", "a.txt", tmp_path / "link" / "a.txt"):
        assert [hit.document for hit in index.search("one", documents=[given])] == ["reports/a.txt"]
    assert index.remove("b.txt") == 1
    assert names_in(index) == ["reports/a.txt"]
    for call in (index.remove, lambda one: index.search("one", documents=[one])):
        with pytest.raises(InvalidRequest, match=r"no document 'reports/b\.txt'"):
            call("reports/b.txt")


def test_without_a_store_names_are_told_apart(tmp_path: Path) -> None:
    """Two folders of one name are told apart by the folder above them."""
    folders = [write(tmp_path / above / "reports", a="one") for above in ("mine", "yours")]
    named = [document.name for document in name_unstored(find_documents(folders))]
    assert named == ["mine/reports/a.txt", "yours/reports/a.txt"]


# A store that 0.1 made, with names such as /srv/archive/reports/notes.txt


@pytest.fixture(params=["sqlite", "postgres"])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a copy of the store that pagevec 0.1 made."""
    if request.param == "sqlite":
        (tmp_path / "store").mkdir()
        shutil.copy(FORMER / "pages.sqlite3", tmp_path / "store")
        return str(tmp_path / "store")
    name = new_database(request.getfixturevalue("postgres"))
    with psycopg.connect(name, autocommit=True) as connection:
        connection.execute((FORMER / "postgres.sql").read_text())  # type: ignore[call-overload]
    return name


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """The folder of that store, which has moved since."""
    return Path(shutil.copytree(FORMER / "reports", tmp_path / "moved" / "reports"))


def assert_new_names(store: Store, *more: str) -> None:
    names = [record.name for record in store.ledger.records()]
    expected = ["reports/2024/winter.png", "reports/notes.txt", "reports/receipt.png", *more]
    assert names == sorted(expected)
    assert store.count() == len(expected)


def test_a_former_store_is_searched(former: str, client: Client) -> None:
    """The absolute names of 0.1 are found as they are, by name and in a filter."""
    with Index(former, client) as index:
        hits = index.search("night route", k=1)
        assert hits[0].document == "/srv/archive/reports/2024/winter.png"
        assert len(index.search("ferry", documents=["/srv/archive/reports/notes.txt"])) == 1


def test_a_former_store_is_added_to(former: str, client: Client, reports: Path) -> None:
    """Added again from where it is now, the folder's documents get new names, none twice."""
    (reports / "new.txt").write_text("a page that 0.1 did not have")
    with Index(former, client) as index:
        report = index.add(reports)
        assert (report.pages_stored, len(report.skipped), report.failed) == (1, 3, ())
        [hit] = index.search("night route", k=1)
        assert hit.document == "reports/2024/winter.png"
        assert hit.picture().size == (420, 150)
        assert hit.maps().overall.values.max() > 0
    with open_store(former) as store:
        assert_new_names(store, "reports/new.txt")


def test_a_former_store_where_it_was(former: str, client: Client, reports: Path) -> None:
    """A folder that did not move is recognised by its path, even if every file was edited."""
    with open_store(former) as store:
        names = [record.name for record in store.ledger.records()]
        store.rename({one: one.replace("/srv/archive", str(reports.parent)) for one in names})
    (reports / "notes.txt").write_text("edited")
    (reports / "receipt.png").unlink()
    (reports / "2024" / "winter.png").unlink()
    with Index(former, client) as index:
        report = index.add(reports)
        assert report.pages_stored == 1
        removed = index.prune(reports).removed
        assert removed == ("reports/2024/winter.png", "reports/receipt.png")
        assert names_in(index) == ["reports/notes.txt"]


def test_a_former_store_with_another_folder(former: str, client: Client, tmp_path: Path) -> None:
    """A folder of the same name with other files takes none of the former names."""
    other = write(tmp_path / "other" / "reports", notes="nothing that 0.1 has seen")
    with Index(former, client) as index:
        index.add(other)
        assert len(index.documents()) == 4
        assert "reports/notes.txt" in names_in(index)


def test_upgrades_meet(former: str, client: Client, reports: Path) -> None:
    """Documents that were ingested under their new names meanwhile replace the former ones."""
    with open_store(former) as store:
        store.rename({"/srv/archive/reports/notes.txt": "reports/notes.txt"})
        name_documents(find_documents([reports]), store)
        assert_new_names(store)
