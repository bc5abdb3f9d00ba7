"""Windows and macOS, simulated: modules and calls that they lack are taken away, units are theirs.

Nothing here runs on those systems. What it proves is that nothing that `pagevec serve` needs at its
start is missing there.
"""

import os
import resource
import sys
from pathlib import Path

import psutil
import pytest

from conftest import Service
from pagevec import machine
from pagevec.server.guard import most_connections
from pagevec.server.own_key import own_key
from processes import environment, serving

# psutil and platformdirs have other parts on each system; those for Linux keep what they need.
WINDOWS = """
import builtins, os

MISSING = {"resource", "fcntl", "pwd", "grp", "termios", "uvloop"}
import_module = builtins.__import__


def import_there(name, globals=None, *others, **named):
    importer = (globals or {}).get("__name__", "")
    if name in MISSING and not importer.startswith("psutil"):
        raise ModuleNotFoundError(f"{importer}: No module named {name!r}", name=name)
    return import_module(name, globals, *others, **named)


builtins.__import__ = import_there
for name in ("geteuid", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "set_blocking",
             "sched_getaffinity"):
    delattr(os, name)
os.supports_dir_fd.clear()
"""


def test_serve_without_what_windows_lacks(tmp_path: Path) -> None:
    """It starts without a key, with a store and uploads, and answers who sends the key it kept.

    Neither `resource` nor `fcntl` can be imported, and the calls of POSIX for its key are gone.
    """
    hooks, state, home = (tmp_path / name for name in ("hooks", "state", "home"))
    for folder in (hooks, home):
        folder.mkdir()
    (hooks / "sitecustomize.py").write_text(WINDOWS)
    variables = environment(
        SERVICE_API_KEY="",
        PYTHONPATH=os.pathsep.join(filter(None, [str(hooks), os.environ.get("PYTHONPATH")])),
        XDG_STATE_HOME=str(state),
    )
    with serving(home, variables, "--store", "store", "--uploads") as process:
        key = (state / "pagevec" / "key").read_text().strip()
        with Service(process.url, key).client() as client:
            inputs = {"inputs": ["night route"], "input_type": "text"}
            answer = client.post("/embeddings", json=inputs)
            assert answer.status_code == 200, answer.text
            assert 'pagevec_memory_bytes{kind="peak"}' in client.get("/metrics").text
            assert client.get("/documents").json()["documents"] == []
        assert process.stop() == 0


def test_units_of_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """KiB on Linux, bytes on macOS, and psutil's peak where there is no `resource`."""
    here = psutil.Process().memory_info().rss
    assert here / 2 < machine.peak_memory() < 100 * here

    in_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "darwin")
    assert in_kib <= machine.peak_memory() < 2 * in_kib

    class Process:
        def memory_info(self) -> "Process":
            return self

        rss, peak_wset = 100, 123

    monkeypatch.setattr(machine, "resource", None)
    monkeypatch.setattr(psutil, "Process", Process)
    assert machine.peak_memory() == 123


def test_connections_where_descriptors_have_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where macOS calls its limit infinite and refuses it, the most that it takes is asked for.

    Windows has no such limit, and Linux keeps its own.
    """
    assert 16 <= most_connections() <= 10_000

    class Mac:
        RLIM_INFINITY, RLIMIT_NOFILE = resource.RLIM_INFINITY, resource.RLIMIT_NOFILE
        limits = (256, resource.RLIM_INFINITY)

        def getrlimit(self, _what: int) -> tuple[int, int]:
            return self.limits

        def setrlimit(self, _what: int, limits: tuple[int, int]) -> None:
            if not 0 <= limits[0] <= 10_240:
                raise ValueError("current limit exceeds maximum limit")
            self.limits = limits

    monkeypatch.setattr(machine, "resource", mac := Mac())
    assert most_connections() == 10_240 - 1024
    assert mac.limits == (10_240, resource.RLIM_INFINITY)
    monkeypatch.setattr(machine, "resource", None)
    assert most_connections() == 10_000


def test_own_key_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the calls of POSIX the key is kept and found again, and damage is still refused."""
    monkeypatch.setattr("pagevec.server.own_key._HAS_MODES", False)
    first, second = own_key(tmp_path / "new"), own_key(tmp_path / "new")
    assert first.fault is None
    assert first == second
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["key"]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "key").symlink_to(first.file)
    assert "symbolic link" in str(own_key(tmp_path / "linked").fault)
    first.file.write_text("something else")
    assert "holds no key" in str(own_key(tmp_path / "new").fault)
