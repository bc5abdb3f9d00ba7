"""What the tests of all stores share: how they are filled, and programs for other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vectors
from pagevec.stores.base import Store

ADD_FOR_EVER = """
for number in range(1, 100_000):
    store.add([page("endless", number)])
    print(number, flush=True)
"""

_PROGRAM = """
import sys
import vectors
from vectors import page
from pagevec.stores import open_store
vectors.DIM = int(sys.argv[2])
store = open_store(sys.argv[1])
"""


def fill(
    store: Store, document: str, pages: int, *, first: int = 1, dim: int | None = None
) -> None:
    """Add pages from `first` on as ingestion does, few at a time."""
    numbers = range(first, first + pages)
    for start in range(0, pages, 5):
        store.add([vectors.page(document, one, dim=dim) for one in numbers[start : start + 5]])


def another_process(name: str, code: str) -> subprocess.Popen[str]:
    """Start a process that opens the store `name` as `store` and runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM + code, name, str(vectors.DIM)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )


def need_processes(name: str) -> None:
    """Skip a test that has a store open in several processes where only one at a time may."""
    if name.startswith("qdrant:"):
        pytest.skip("Qdrant's engine lets one process at a time use a folder")


def elsewhere(name: str, code: str) -> None:
    """Run `code` in another process that has the store `name` open as `store`, and wait for it."""
    need_processes(name)
    process = another_process(name, code)
    process.communicate(timeout=60)
    assert process.returncode == 0


def as_mere_user(name: str, code: str, *, create: bool = False) -> str:
    """Return what `code` prints in a process for which modes of files count, under root, too."""
    # Root owns the files, and does without the right to write to them all the same.
    mere = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    program = _PROGRAM.replace("(sys.argv[1])", f"(sys.argv[1], create={create})")
    process = subprocess.run(
        [*mere, sys.executable, "-c", program + code, name, str(vectors.DIM)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
