"""What the tests of all stores share: pages, and programs for other processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pagevec.types import MultiVector, Page, PageKey

DIM = 128

ADD_FOR_EVER = """
for number in range(1, 100_000):
    store.add([page("endless", number)])
    print(number, flush=True)
"""

_PROGRAM = """
import sys
from contract import page
from pagevec.stores.open import open_store
store = open_store(sys.argv[1])
"""


def unit_vectors(count: int, seed: int, dim: int = DIM) -> MultiVector:
    """Return float32 (count, dim), the same for the same seed."""
    values = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    vectors: MultiVector = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def page(document: str, number: int, seed: int = 0, **fields: Any) -> Page:
    """Return a page with 3 to 9 vectors, other ones for each document, number and seed."""
    salt = 100_000 * seed + 1000 * (sum(document.encode()) % 100) + number
    return Page(PageKey(document, number), unit_vectors(3 + number % 7, salt), **fields)


def another_process(name: str, code: str) -> subprocess.Popen[str]:
    """Start a process that opens the store `name` as `store` and runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM + code, name],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )


def elsewhere(name: str, code: str) -> None:
    """Run `code` in another process that has the store `name` open, to its end."""
    process = another_process(name, code)
    process.communicate(timeout=60)
    assert process.returncode == 0
