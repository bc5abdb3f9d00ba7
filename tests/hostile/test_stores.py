"""Stores whose files are cut, overwritten or exchanged while threads search them.

Whatever happens: the process lives, each call ends in time with pages as they were stored or with a
StoreError, and another store in the same process is searched as before.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest

TRIES, LONG_TRIES = 3, 40
_SECONDS = 20  # for each try, start included

PROGRAM = """
import os, random, shutil, sys, threading, time
import numpy as np
from pathlib import Path
from pagevec.errors import StoreError
from pagevec.search.retriever import Retriever
from pagevec.stores import hamming
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import PageKey
from vectors import page

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
hamming.SCAN_FROM = chance.choice([0, 2000])
keys = [PageKey("a", number) for number in range(1, 200)]
stored = [page(one.document, one.number, thumbnail=b"x" * chance.randrange(30_000)) for one in keys]
vectors = {one.key: one.vectors for one in stored}

def fill(name):
    store = SqliteStore(folder / name)
    store.add(stored[:150])
    if chance.random() < 0.5:  # otherwise all pages are in the log
        store.close()
        store = SqliteStore(folder / name)
    store.add(stored[150:])
    return store

attacked, other = fill("attacked"), fill("other")
file = folder / "attacked" / FILE
log = file.with_name(FILE + "-wal")

def cut(target):
    os.truncate(target, chance.randrange(target.stat().st_size + 1))

def overwrite(target):
    with target.open("r+b") as writing:
        for _ in range(chance.randrange(1, 9)):
            writing.seek(16384 * chance.randrange(target.stat().st_size // 16384 + 1))
            writing.write(chance.randbytes(16384))

def exchange(target):
    shutil.copyfile(folder / "other" / FILE, target)

def lose(target):
    target.unlink()

ended, errors, wrong, calls = threading.Event(), [], [], []

def search(store, is_attacked):
    numbers = random.Random(seed)
    while not ended.is_set():
        wanted = numbers.choice(stored)
        started = time.monotonic()
        try:
            found = Retriever(None, store).search_vectors(wanted.vectors, 3)
            if found and found[0].score > len(wanted.vectors) * 1.01:
                wrong.append(("score", found[0]))
            if found[:1] and not is_attacked and found[0].key != wanted.key:
                wrong.append(("first", found[0]))
            for one in store.fetch(keys):
                if not np.allclose(one.vectors, vectors[one.key], atol=1e-3):
                    wrong.append(("vectors", one.key))
        except StoreError as error:
            errors.append((is_attacked, str(error)))
        except BaseException as error:
            wrong.append(("error", repr(error)))
        calls.append(time.monotonic() - started)

searching = [threading.Thread(target=search, args=one) for one in
             [(attacked, True)] * 3 + [(other, False)]]
for one in searching: one.start()
for _ in range(chance.randrange(1, 4)):
    time.sleep(0.2 * chance.random())
    target = chance.choice([file, file, log])
    if target.exists():
        attack = chance.choice([cut, cut, overwrite, exchange, lose])
        print(attack.__name__, target.name, flush=True)
        attack(target)
time.sleep(0.5)
ended.set()
for one in searching: one.join()
assert not wrong, wrong[:5]
assert all(is_attacked for is_attacked, _ in errors), errors[:5]
assert all(str(file) in error for _, error in errors), errors[:5]
assert max(calls) < 10, max(calls)
os._exit(0)
"""


def attack(folder: Path, seed: int) -> None:
    folder.mkdir()
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, str(seed)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    said = f"seed {seed}: {process.stdout}{process.stderr[-3000:]}"
    assert process.returncode == 0, said


def test_files_that_change_under_a_search(tmp_path: Path) -> None:
    """Cut, overwritten, exchanged or lost at random: an error of that store, nothing else."""
    chance = random.Random()  # noqa: S311 - other cases in each run; a failure names its seed
    for number in range(TRIES):
        attack(tmp_path / str(number), chance.randrange(10**6))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_files_that_change_under_many_searches(tmp_path: Path) -> None:
    """The same, with more cases."""
    for seed in range(LONG_TRIES):
        attack(tmp_path / str(seed), seed)
