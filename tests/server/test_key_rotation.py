"""Keys in a file: replaced while the service runs, under load."""

import grp
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from conftest import Service, make_settings, running
from documents import commands, run
from load import loaded
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings
from processes import environment, serving

ASK = {"input_type": "text", "inputs": ["which route carried the most passengers?"]}


def write(file: Path, keys: str) -> None:
    """Replace `file` as an operator does: whole, at once."""
    made = file.with_suffix(".new")
    made.write_text(keys)
    made.replace(file)


def caller(url: str, keys: dict[str, str], name: str) -> Callable[[], int]:
    """Return a call with the key that the caller `name` has at that moment."""
    client = httpx.Client(timeout=60, trust_env=False)

    def call() -> int:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        return client.post(f"{url}/npz/embeddings", json=ASK, headers=headers).status_code

    return call


def status(service: Service, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{service.url}/embeddings", json=ASK, headers=headers).status_code


def as_root(blocks: list[str], folder: Path) -> list[str]:
    """Return commands that root types, for a group and a folder that are here."""
    group = grp.getgrgid(os.getgid()).gr_name
    return [
        block.replace("-g pagevec", f"-g {group}").replace("/etc/pagevec", f"{folder}/etc")
        for block in blocks
    ]


@dataclass(frozen=True)
class Layout:
    """Where keys are in a way of hosting, and the marks of its commands in docs/hosting.md."""

    make: str
    rotate: str
    file: str
    new: str
    modes: tuple[int, int]


COMPOSE = Layout("run", "rotate", "secrets/keys/service_api_key", "secrets/new_key", (0o755, 0o644))
SYSTEMD = Layout(
    "make a key: systemd", "rotate: systemd", "etc/keys", "etc/new_key", (0o750, 0o640)
)


@pytest.mark.long
@pytest.mark.parametrize("layout", [COMPOSE, SYSTEMD], ids=["compose", "systemd"])
def test_rotation_under_load(tmp_path: Path, layout: Layout) -> None:
    """The commands of docs/hosting.md: callers who change between see only 200; then old is out.

    A real process that runs throughout; no call is tried again. No command shows a key, and the
    file has the same modes at the end.
    """
    [make] = as_root(commands("hosting.md", layout.make), tmp_path)
    both, without_old = as_root(commands("hosting.md", layout.rotate), tmp_path)
    shown = run(make, tmp_path)
    file = tmp_path / layout.file
    old = file.read_text().strip()
    variables = environment(SERVICE_API_KEY_FILE=str(file))
    del variables["SERVICE_API_KEY"]
    keys = dict.fromkeys("abcd", old)
    with (
        serving(tmp_path, variables, "--max-visual-tokens", "16", key=old) as process,
        loaded(*(caller(process.url, keys, name) for name in keys)) as load,
    ):
        load.wait_for(50)
        shown += run(both, tmp_path)
        new = (tmp_path / layout.new).read_text().strip()
        for name in keys:
            load.wait_for(20)
            keys[name] = new
        load.wait_for(20)
        shown += run(without_old, tmp_path)
        load.wait_for(50)
        assert status(process, old) == 401
    print(f"rotation: {load.answers}")
    assert set(load.answers) == {200}
    assert load.answers[200] >= 200
    log = process.log.read_text()
    assert log.count("the keys are now key-") == 2
    assert (shown, file.read_text().split()) == ("", [new])
    modes = tuple(path.stat().st_mode & 0o777 for path in (file.parent, file))
    assert modes == layout.modes
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_a_caller_is_shut_out(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """The documented command removes the key of a name, and no other, without showing one."""
    [block] = as_root(commands("operations.md", "shut out"), tmp_path)
    file = tmp_path / "etc" / "keys"
    file.parent.mkdir()
    write(file, "one\ntwo\nthree\n")
    settings = make_settings(service_api_key=None, service_api_key_file=file)
    with running(embedder, settings) as service:
        assert [status(service, key) for key in ("one", "two", "three")] == [200, 200, 200]
        name = hashlib.sha256(b"two").hexdigest()[:8]
        assert run(block.replace("1a2b3c4d", name), tmp_path) == ""
        assert [status(service, key) for key in ("one", "two", "three")] == [200, 401, 200]
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("one\nthree\n", 0o640)


@pytest.mark.parametrize("damaged", ["", "two words", None], ids=["empty", "not a key", "gone"])
def test_a_damaged_file_changes_nothing(
    embedder: LocalEmbedder, tmp_path: Path, damaged: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A file without a usable key leaves the keys as they are; a good one counts again."""
    file = tmp_path / "keys"
    write(file, "one\ntwo\n")
    settings = make_settings(service_api_key=None, service_api_key_file=file)
    with running(embedder, settings) as service:
        assert [status(service, key) for key in ("one", "two", "three")] == [200, 200, 401]
        if damaged is None:
            file.unlink()
        else:
            write(file, damaged)
        assert [status(service, key) for key in ("one", "two", "three")] == [200, 200, 401]
        assert "the keys stay as they were" in caplog.text
        assert "two words" not in caplog.text
        write(file, "three")
        assert [status(service, key) for key in ("one", "three")] == [401, 200]


def test_a_file_that_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no text, no key, or keys in two places: the start stops, naming the variable."""
    monkeypatch.setenv("SERVICE_API_KEY_FILE", str(tmp_path / "keys"))
    monkeypatch.delenv("SERVICE_API_KEY", raising=False)
    for content, said in [(None, "No such file"), (b"\xff", "not text"), (b",\n", "no key")]:
        if content is not None:
            (tmp_path / "keys").write_bytes(content)
        with pytest.raises(ConfigurationError, match=f"SERVICE_API_KEY_FILE.*{said}"):
            _ = Settings.from_environment(None).keys
    monkeypatch.setenv("SERVICE_API_KEY", "key")
    with pytest.raises(ConfigurationError, match="not both"):
        Settings.from_environment(None)
