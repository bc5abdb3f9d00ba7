"""The key of a service that was given none: made once, kept for its user alone, or not trusted."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import make_settings
from pagevec.errors import ConfigurationError
from pagevec.server.own_key import OwnKey, ensure_key, own_key

GOOD = "0123456789abcdefghijklmnopqrstu_\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder as the first start made it, with a key."""
    made = tmp_path / "state" / "pagevec"
    made.mkdir(parents=True, mode=0o700)
    (made / "key").write_text(GOOD)
    (made / "key").chmod(0o600)
    return made


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_kept_between_starts(tmp_path: Path, umask: int) -> None:
    """The second start has the key of the first; file and folder are their user's alone."""
    state = tmp_path / "state" / "pagevec"
    before = os.umask(umask)
    try:
        first, second = own_key(state), own_key(state)
    finally:
        os.umask(before)
    assert first == second == OwnKey(first.key, state / "key")
    assert len(first.key) == 32 and first.key not in repr(first)
    assert (state / "key").read_text() == f"{first.key}\n"
    assert (mode(state), mode(state / "key")) == (0o700, 0o600)
    assert names(state) == ["key"]


def test_many_first_starts_agree(tmp_path: Path) -> None:
    """Threads and processes that all start first use one key, and leave nothing else behind."""
    for round_ in range(20):
        state = tmp_path / str(round_) / "pagevec"
        barrier = threading.Barrier(8)

        def start(state: Path = state, barrier: threading.Barrier = barrier) -> OwnKey:
            barrier.wait()
            return own_key(state)

        with ThreadPoolExecutor(8) as threads:
            keys = {one.result() for one in [threads.submit(start) for _ in range(8)]}
        assert len(keys) == 1
        assert keys.pop().fault is None
        assert names(state) == ["key"]
    program = (
        "import sys; from pathlib import Path; from pagevec.server.own_key import own_key; "
        "print('ready', flush=True); sys.stdin.readline(); print(own_key(Path(sys.argv[1])).key)"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "processes" / "pagevec")]
    started = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    assert len({one.communicate(timeout=60)[0] for one in started}) == 1


def spoil_mode(file: Path) -> None:
    file.chmod(0o640)


def spoil_content(file: Path) -> None:
    file.write_text("secret\n")


def spoil_length(file: Path) -> None:
    file.write_text(GOOD + GOOD)


def empty(file: Path) -> None:
    file.write_text("")


def not_text(file: Path) -> None:
    file.write_bytes(b"\xff" * 32 + b"\n")


def link(file: Path) -> None:
    file.rename(file.parent / "elsewhere")
    file.symlink_to(file.parent / "elsewhere")


def dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent.parent / "planted")


def folder_in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir(mode=0o700)


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def linked_folder(file: Path) -> None:
    file.parent.rename(file.parent.parent / "elsewhere")
    file.parent.symlink_to(file.parent.parent / "elsewhere")


def open_folder(file: Path) -> None:
    file.parent.chmod(0o770)


def file_for_a_folder(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("no folder")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_mode, "key is open to other users (mode 640); delete it"),
        (spoil_content, "key holds no key that pagevec made; delete it"),
        (spoil_length, "key holds no key"),
        (empty, "key holds no key"),
        (not_text, "key holds no key"),
        (link, "key cannot be used: a symbolic link is not followed"),
        (dangling_link, "key cannot be used: a symbolic link is not followed"),
        (folder_in_its_place, "key cannot be used: Is a directory"),
        (fifo, "key is not a file"),
        (linked_folder, "key cannot be used: a symbolic link is not followed"),
        (open_folder, "pagevec is open to other users (mode 770)"),
        (file_for_a_folder, "key cannot be used: File exists"),
    ],
)
def test_what_is_not_trusted(folder: Path, spoil: Callable[[Path], None], said: str) -> None:
    """What others could have put there is neither used nor changed: each start has a new key."""
    file = folder / "key"
    spoil(file)
    content = file.read_bytes() if file.is_file() else None
    one, other = own_key(folder), own_key(folder)
    assert one.fault is not None and said in one.fault
    assert str(folder) in one.fault and "\n" not in one.fault
    assert "secret" not in one.fault
    assert len({one.key, other.key, GOOD.strip()}) == 3
    assert (file.read_bytes() if file.is_file() else None) == content
    assert not (folder.parent / "planted").exists()


@pytest.mark.parametrize("of", ["file", "folder"])
def test_another_users(folder: Path, of: str) -> None:
    """A key that another user owns, or whose folder another user owns, is not trusted."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = folder / "key" if of == "file" else folder
    os.chown(path, 12345, -1)
    own = own_key(folder)
    assert own.fault == f"{path} belongs to another user"
    assert own.key != GOOD.strip()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc, which nobody writes")
def test_where_nothing_can_be_written() -> None:
    """Without a place to keep it the key lasts for this start, and the reason is told."""
    own = own_key(Path("/proc/pagevec"))
    assert own.fault is not None and own.fault.startswith("/proc/pagevec/key cannot be used: ")
    assert own_key(Path("/proc/pagevec")).key != own.key


def test_a_user_without_a_home() -> None:
    """In a container whose user is only a number the key lasts for this start."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    program = (
        "import os; from conftest import make_settings; "
        "from pagevec.server.own_key import ensure_key; os.setuid(54321); "
        "print(ensure_key(make_settings(service_api_key=None))[1].fault)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "there is no home folder to keep it in\n", done.stderr


def test_a_key_that_cannot_be_written_whole(tmp_path: Path) -> None:
    """A key of which a part was written is not kept, and nothing of it stays."""
    program = (
        "import resource, sys; from pathlib import Path; "
        "from pagevec.server.own_key import own_key; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); "
        "print(own_key(Path(sys.argv[1])).fault)"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "pagevec")]
    said = subprocess.run(line, capture_output=True, text=True, timeout=60).stdout
    assert said == f"{tmp_path}/pagevec/key cannot be used: File too large\n"
    assert names(tmp_path / "pagevec") == []


def test_a_key_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SERVICE_API_KEY or a file of keys nothing is made, read or kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = make_settings()
    assert ensure_key(settings) == (settings, None)
    keys = tmp_path / "keys"
    keys.write_text("of-the-user")
    settings = make_settings(service_api_key=None, service_api_key_file=keys)
    assert ensure_key(settings) == (settings, None)
    assert names(tmp_path) == ["keys"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_on_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A key is made, and a kept one used, only where no other host can reach the service."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings, own = ensure_key(make_settings(service_api_key=None, host=host))
    assert own is not None and settings.keys == (own.key,)
    assert own.file == tmp_path / "pagevec" / "key"
    for elsewhere in ("0.0.0.0", "::", "192.0.2.1", "pages.example.org"):
        with pytest.raises(ConfigurationError, match="SERVICE_API_KEY is not set"):
            ensure_key(make_settings(service_api_key=None, host=elsewhere))
