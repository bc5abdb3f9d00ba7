"""`pagevec morphik configure` on folders laid out like releases of morphik-core."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from installations import (
    ENV,
    SECRET,
    forked_release,
    image_only,
    json_release,
    middle_release,
    npz_release,
)

from pagevec.cli import main

URL = "https://pages.example.org"
NEW_KEY = "key-of-the-service"


def configure(folder: Path, *more: str, url: str = URL, key: str | None = NEW_KEY) -> Result:
    """Run the command; check that it prints no secret."""
    options = [] if key is None else ["--key", key]
    arguments = ["morphik", "configure", str(folder), "--url", url, *options, *more]
    done = CliRunner().invoke(main, arguments, env={"SERVICE_API_KEY": None})
    assert NEW_KEY not in done.output
    assert SECRET not in done.output
    return done


def section(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "morphik.toml").read_text())["morphik"]
    return found


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("release", "domain"),
    [
        (json_release, f"{URL}/json"),
        (middle_release, f"{URL}/npz"),
        (npz_release, [f"{URL}/npz"]),
    ],
)
def test_releases(release: Callable[[Path], Path], domain: Any, tmp_path: Path) -> None:
    """Each release gets the format that it reads, as the type that its settings declare."""
    done = configure(release(tmp_path))
    assert done.exit_code == 0, done.output
    found = section(tmp_path)
    assert found["enable_colpali"] is True
    assert found["colpali_mode"] == "api"
    assert found["morphik_embedding_api_domain"] == domain


def test_layout_stays(tmp_path: Path) -> None:
    """Three lines of morphik.toml change, and only their values; .env gains one line."""
    before = (npz_release(tmp_path) / "morphik.toml").read_text()
    configure(tmp_path)
    expected = (
        before.replace("enable_colpali = false", "enable_colpali = true")
        .replace('"http://localhost:6000"', f'"{URL}/npz"')
        .replace('colpali_mode = "local"', 'colpali_mode = "api"')
    )
    assert (tmp_path / "morphik.toml").read_text() == expected
    added = f'MORPHIK_EMBEDDING_API_KEY="{NEW_KEY}"\n'
    assert (tmp_path / ".env").read_text() == ENV + added


def test_windows_line_ends_and_missing_keys(tmp_path: Path) -> None:
    """Line ends are kept; a setting that is missing is added to its own section."""
    text = '[morphik]\r\nenable_colpali = true # on\r\n\r\n[graph]\r\nmodel = "m"\r\n'
    (npz_release(tmp_path) / "morphik.toml").write_bytes(text.encode())
    configure(tmp_path)
    after = (tmp_path / "morphik.toml").read_bytes().decode()
    assert after.startswith("[morphik]\r\nenable_colpali = true # on\r\n")
    assert after.endswith('\r\n[graph]\r\nmodel = "m"\r\n')
    assert section(tmp_path)["morphik_embedding_api_domain"] == [f"{URL}/npz"]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """A second run says that nothing changes, writes nothing and makes no backup."""
    configure(npz_release(tmp_path))
    once = tree(tmp_path)
    done = configure(tmp_path)
    assert "nothing to change" in done.output
    assert tree(tmp_path) == once


def test_dry_run(tmp_path: Path) -> None:
    """--dry-run shows the diff, without values of .env, and writes nothing."""
    before = tree(npz_release(tmp_path))
    done = configure(tmp_path, "--dry-run")
    assert f'+morphik_embedding_api_domain = ["{URL}/npz"]  # endpoint' in done.output
    assert "+MORPHIK_EMBEDDING_API_KEY=***" in done.output
    assert tree(tmp_path) == before


def test_env_is_closed(tmp_path: Path) -> None:
    """Both a new and an old .env get mode 600, even if the key needs no change."""
    configure(image_only(tmp_path), "--format", "npz")
    env = tmp_path / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    env.chmod(0o644)
    assert "file mode 600" in configure(tmp_path, "--format", "npz").output
    assert env.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("NAME='former key' # why", f'NAME="{NEW_KEY}" # why'),
        ("export NAME = former#1", f'export NAME = "{NEW_KEY}"'),
        ("NAME=", f'NAME="{NEW_KEY}"'),
        ('NAME="former"\r', f'NAME="{NEW_KEY}"\r'),
        (f"NAME={NEW_KEY}", f"NAME={NEW_KEY}"),
        ("# NAME=former", f'# NAME=former\nNAME="{NEW_KEY}"'),
    ],
)
def test_a_key_that_is_there(line: str, after: str, tmp_path: Path) -> None:
    """The key is replaced in its line, whatever its quotes; the old key is not printed either."""
    name = "MORPHIK_EMBEDDING_API_KEY"
    env = npz_release(tmp_path) / ".env"
    env.write_bytes(f"A=1\n{line.replace('NAME', name)}\n".encode())
    done = configure(tmp_path)
    assert "former" not in done.output
    assert env.read_bytes().decode() == f"A=1\n{after.replace('NAME', name)}\n"


def test_backup(tmp_path: Path) -> None:
    """The former files are kept, as private as the originals, in a folder that git ignores."""
    before = tree(npz_release(tmp_path))
    done = configure(tmp_path)
    (kept,) = (tmp_path / ".pagevec-backup").glob("*-*")
    assert str(kept) in done.output
    for name in ("morphik.toml", ".env"):
        assert (kept / name).read_bytes() == before[tmp_path / name]
    assert (kept / ".env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".pagevec-backup" / ".gitignore").read_text() == "*\n"


def test_without_a_key(tmp_path: Path) -> None:
    """Without a key .env is not changed, and a note says what is missing."""
    done = configure(npz_release(tmp_path), key=None)
    assert "NOTE  no key was given" in done.output
    assert (tmp_path / ".env").read_text() == ENV


def test_notes(tmp_path: Path) -> None:
    """Notes name settings that conflict: a remote parser, another secret manager."""
    more = 'parser_mode = "api"\nsecret_manager = "infisical"\n'
    done = configure(npz_release(tmp_path, more))
    assert 'set parser_mode = "local"' in done.output
    assert "secret_manager" in done.output


def test_what_is_right_keeps_its_layout(tmp_path: Path) -> None:
    """A list over several lines that is already right keeps its layout."""
    toml = npz_release(tmp_path) / "morphik.toml"
    over_lines = '["http://localhost:6000"]', f'[  # ours\n  "{URL}/npz",\n]'
    toml.write_text(toml.read_text().replace(*over_lines))
    configure(tmp_path)
    assert over_lines[1] in toml.read_text()


@pytest.mark.parametrize(
    "url", ["http://embeddings", "http://embeddings/json/embeddings/", " http://embeddings/ "]
)
def test_the_url_may_be_any_of_the_service(url: str, tmp_path: Path) -> None:
    """Paths and blanks around the address are removed; the host's name is not cut."""
    configure(npz_release(tmp_path), url=url)
    assert section(tmp_path)["morphik_embedding_api_domain"] == ["http://embeddings/npz"]


def empty(folder: Path) -> Path:
    return folder


def broken(folder: Path) -> Path:
    (folder / "morphik.toml").write_text("[morphik\n")
    return folder


def foreign(folder: Path) -> Path:
    (npz_release(folder) / ".env").write_bytes(b"NAME=\xe4\n")
    return folder


def sectionless(folder: Path) -> Path:
    (folder / "morphik.toml").write_text("[api]\nport = 1\n")
    return folder


@pytest.mark.parametrize(
    ("release", "options", "said"),
    [
        (empty, {}, "there is no morphik.toml"),
        (broken, {}, "is not TOML"),
        (sectionless, {}, "no section [morphik]"),
        (foreign, {}, ".env cannot be read"),
        (image_only, {}, "cannot tell from core/embedding/colpali_api_embedding_model.py"),
        (forked_release, {}, "--format npz"),
        (
            npz_release,
            {"url": "pages.example.org"},
            "--url pages.example.org: expected https://host",
        ),
        (npz_release, {"key": "two words"}, "the key is empty or has a blank"),
        (npz_release, {"key": "$HOME"}, "the key is empty or has a blank"),
    ],
)
def test_errors(
    release: Callable[[Path], Path], options: dict[str, str], said: str, tmp_path: Path
) -> None:
    """An error ends with a message and exit code 2, and changes no file."""
    before = tree(release(tmp_path))
    done = configure(tmp_path, **options)
    assert done.exit_code == 2
    assert said in done.output
    assert options.get("key", "no such text") not in done.output
    assert tree(tmp_path) == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """If .env is a symbolic link, the file that it points to is changed."""
    folder = tmp_path / "release"
    env = npz_release(folder) / ".env"
    real = env.rename(tmp_path / "real.env")
    env.symlink_to(os.path.relpath(real, folder))
    configure(folder)
    assert env.is_symlink()
    assert NEW_KEY in real.read_text()
