"""Faults planted in the reader of documents: at a page of a document, or while it is opened.

`plant` writes a `sitecustomize.py`, which each Python imports at its start; in the reader it wraps
whatever opener is chosen, so that nothing of pagevec needs to know of these tests.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from pagevec.ingest.boundary import stop_readers

OPENING = 0
"""In place of a page's number: the document fails while it is opened."""

CUSTOMIZE = '''
import contextlib, ctypes, dataclasses, json, os, pathlib, signal, subprocess, sys, threading, time

FOLDER = pathlib.Path(__file__).parent


class Odd(Exception):
    """An exception that cannot even be shown."""

    def __str__(self):
        raise RuntimeError("this has no words")


def _answers():
    """Return the pipe to the parent: the reader's own copy of its standard output."""
    pipes = [n for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}")]
    return next(n for n in pipes if os.readlink(f"/proc/self/fd/{n}").startswith("pipe"))


def raise_(error):
    raise error


def recurse():
    recurse()


def allocate_at_once():
    bytearray(4 << 30)


def allocate_in_pieces():
    held = [bytes([1]) * (16 << 20) for _ in range(256)]
    raise_(AssertionError(f"{len(held)} pieces of 16 MiB were allocated"))


def allocate_in_c():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    for _ in range(256):
        libc.memset(libc.malloc(16 << 20), 1, 16 << 20)


def hang_in_c():
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter: no other thread of it runs


def hang_with_child():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    (FOLDER / "children").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(1000)


def say_garbage():
    os.write(_answers(), b"this is no message, and it is longer than a header " * 8)
    time.sleep(1000)


def say_a_list():
    os.write(_answers(), (2).to_bytes(4, "big") + b"[]")


def say_something_else():
    content = b'{"number": "x", "blobs": []}'
    os.write(_answers(), len(content).to_bytes(4, "big") + content)


def promise_gigabytes():
    content = b'{"number": 1, "blobs": [8589934592, 1]}'
    os.write(_answers(), len(content).to_bytes(4, "big") + content)
    time.sleep(1000)


def stop_in_the_middle():
    content = b'{"number": 1, "blobs": [100, 1]}'
    os.write(_answers(), len(content).to_bytes(4, "big") + content + b"half")
    time.sleep(1000)


FAULTS = {
    "exception": lambda: raise_(ZeroDivisionError("planted")),
    "odd exception": lambda: raise_(Odd()),
    "exit": lambda: sys.exit(3),
    "recursion": recurse,
    "segmentation fault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "silent end": lambda: os._exit(0),
    "hang": lambda: time.sleep(1000),
    "busy hang": lambda: any(number for number in iter(int, 1)),  # zeros, for ever
    "hang in C": hang_in_c,
    "hang with a child": hang_with_child,
    "4 GB at once": allocate_at_once,
    "4 GB in pieces": allocate_in_pieces,
    "4 GB in C": allocate_in_c,
    "garbage": say_garbage,
    "a list": say_a_list,
    "something else": say_something_else,
    "gigabytes promised": promise_gigabytes,
    "half an answer": stop_in_the_middle,
}


def _fail_if_planned(document, number):
    plan = json.loads((FOLDER / "plan.json").read_text())
    with (FOLDER / "made").open("a") as made:
        made.write(json.dumps([document.name, number]) + "\\n")
    fault = plan.get(f"{document.name}#{number}")
    if fault is not None:
        FAULTS[fault]()


def _customize():
    from pagevec.ingest import openers

    opened = openers.open_in_this_process

    @contextlib.contextmanager
    def open_in_this_process(document, options):
        _fail_if_planned(document, 0)
        with opened(document, options) as pages:

            def make(number):
                _fail_if_planned(document, number)
                return pages.make(number)

            yield dataclasses.replace(pages, make=make)

    openers.open_in_this_process = open_in_this_process


if "pagevec.ingest.reader" in sys.orig_argv:
    (FOLDER / "environment").write_text(json.dumps(dict(os.environ)))
    _customize()
'''


class Plan:
    """The faults that readers of this test meet, and what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "sitecustomize.py").write_text(CUSTOMIZE)
        self.set({})

    def set(self, faults: Mapping[tuple[str, int], str]) -> None:
        """Plan faults by file name and page; the pages that were asked for are forgotten."""
        plan = {f"{name}#{number}": fault for (name, number), fault in faults.items()}
        (self._folder / "plan.json").write_text(json.dumps(plan))
        (self._folder / "made").write_text("")

    def pages_asked_for(self) -> list[tuple[str, int]]:
        """Return file name and number of each page that a reader was asked for."""
        lines = (self._folder / "made").read_text().splitlines()
        made = [tuple(json.loads(line)) for line in lines]
        return [(name, number) for name, number in made if number != OPENING]

    def processes(self) -> list[int]:
        """Return the ids of a reader that hangs with a child, and of the child."""
        file = self._folder / "children"
        return list(map(int, file.read_text().split())) if file.exists() else []

    def environment(self) -> dict[str, str]:
        """Return the environment of the last reader."""
        return dict(json.loads((self._folder / "environment").read_text()))


def plant(folder: Path, patch: pytest.MonkeyPatch) -> Plan:
    """Let readers that start from now on meet the faults of the plan that is returned."""
    folder.mkdir(parents=True)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    patch.setenv("PYTHONPATH", os.pathsep.join(paths))
    stop_readers()
    return Plan(folder)
