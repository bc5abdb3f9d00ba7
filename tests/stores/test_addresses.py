"""How a store's name tells what kind of store it is, for every command and in Python."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import pagevec
from conftest import make_settings
from conftest import pagevec as pagevec_command
from pagevec.cli import main
from pagevec.commands.shelf import Shelf
from pagevec.errors import InvalidRequest, StoreError
from pagevec.search.index import Index
from pagevec.stores import back_up_store, folder_of, is_service, open_store

KNOWN = ("a folder", "postgresql://", "qdrant://host:6333/NAME", "qdrant:FOLDER", "http://")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever is created by mistake is created in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "search fares --store nosuch:thing",
        "ingest . --store nosuch:thing",
        "documents --store nosuch:thing",
        "remove a --store nosuch:thing",
        "store backup nosuch:thing --to copy",
        "export nosuch:thing pages",
    ],
)
def test_an_unknown_scheme(command: str, tmp_path: Path) -> None:
    """Every command refuses a scheme that it does not know, names the known ones, makes nothing."""
    (tmp_path / "a.txt").write_text("fares")
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 2, done.output
    assert "there are no stores of the scheme nosuch" in done.output
    assert all(known in done.output for known in KNOWN)
    assert "A folder of this name is ./nosuch:thing" in done.output
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.long
def test_an_unknown_scheme_to_serve() -> None:
    """A service with such a store does not start."""
    done = pagevec_command("serve", "--model", "bundled", "--store", "nosuch:thing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there are no stores of the scheme nosuch" in done.stderr


def test_an_unknown_scheme_in_python(tmp_path: Path) -> None:
    """`pagevec.Index` and the service's settings refuse it, too."""
    with pytest.raises(InvalidRequest, match="no stores of the scheme mongodb"):
        Index("mongodb://host/pages", pagevec.Client("http://127.0.0.1:9", "key"))
    with pytest.raises(InvalidRequest, match="no stores of the scheme nosuch"):
        Shelf(make_settings(store="nosuch:thing"), ())
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_masked() -> None:
    """A scheme with a typing error does not show the password behind it."""
    with pytest.raises(InvalidRequest) as raised:
        open_store("postgressql://me:secret-word@host/pages")
    assert "secret-word" not in raised.value.message


@pytest.mark.parametrize(
    "name", ["pages", "./a:b", "C:\\pages", "c:/pages", "2024:reports", "a/b:c", "with space: x"]
)
def test_folders(name: str) -> None:
    """A drive of Windows is no scheme, nor is a colon anywhere else; a folder stays a folder."""
    assert folder_of(name) == Path(name)
    open_store(name).close()
    assert (Path(name) / "pages.sqlite3").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("qdrant:pages", Path("pages")),
        ("qdrant:/srv/pages", Path("/srv/pages")),
        ("QDRANT:./pages", Path("pages")),
        ("qdrant://host/pages", None),
        ("qdrant+https://host/pages", None),
        ("postgresql://host/pages", None),
        ("http://host", None),
    ],
)
def test_where_stores_are(name: str, folder: Path | None) -> None:
    """Only stores in a folder of this machine have one, for logs and uploads."""
    assert folder_of(name) == folder
    assert is_service(name) == name.startswith("http")


@pytest.mark.parametrize("name", ["qdrant:pages", "qdrant://host/pages"])
def test_a_backup_of_qdrant(name: str) -> None:
    """What backs up a store in Qdrant is said, with the command to copy."""
    with pytest.raises(InvalidRequest, match=rf"pagevec export {name} copy"):
        back_up_store(name, Path("copy"))


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("qdrant:pages", "qdrant_edge", "qdrant-edge-py"),
        ("qdrant://127.0.0.1:9/pages", "qdrant_client", "qdrant-client"),
    ],
)
def test_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    """A package that is not installed is named, with the extra that brings it."""
    monkeypatch.setitem(sys.modules, module, None)
    for ours in ("embedded", "remote"):
        monkeypatch.delitem(sys.modules, f"pagevec.stores.qdrant.{ours}", raising=False)
    with pytest.raises(StoreError, match=rf"needs {package}: .*pagevec\[qdrant\]"):
        open_store(name)
