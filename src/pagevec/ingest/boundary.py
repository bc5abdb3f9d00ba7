"""Open documents in processes of their own: what happens while a page is made costs that page.

Each open document has a reader process (`pagevec.ingest.reader`) with a time limit and a memory
limit for each page. A reader that crashes or hangs is killed, its children with it, and the next
page starts another one. Idle readers are kept for the next document.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pagevec.errors import DocumentError
from pagevec.ingest.homes import ReaderHome
from pagevec.ingest.page import Pages, ReadOptions, SourcePage
from pagevec.ingest.reader import decode_page, receive, send
from pagevec.ingest.sources import escape
from pagevec.ingest.suffixes import OFFICE

T = TypeVar("T")

_IDLE_READERS = 4
_CLOSE_SECONDS = 10.0
# What a reader may know of this process's environment: no keys.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT", "TZ")
_IS_POSIX = os.name == "posix"


@contextmanager
def open_document(
    path: Path, options: ReadOptions | None = None, shown: str | None = None
) -> Iterator[Pages]:
    """Open the document at `path`; its pages are made one at a time, when they are asked for.

    Args:
        path: of the file.
        options: how it is read.
        shown: what errors call the file; None: its path.

    Raises:
        DocumentError: the document cannot be opened. `Pages.make` raises it for a page that
            cannot be made; the other pages can.
    """
    options = options or ReadOptions()
    document = _Document(path.absolute(), options, shown)
    try:
        count, warnings = document.open()
        most = options.limits.pages
        if most is not None and count > most:
            raise DocumentError(f"it has {count:,} pages, the limit is {most:,}: split it")
        yield Pages(count, document.make, warnings)
    finally:
        document.close()


class _Document:
    """A document that is open in a reader, or will be again once a page is asked for."""

    def __init__(self, path: Path, options: ReadOptions, shown: str | None) -> None:
        self._path = path
        self._name = shown or escape(str(path))
        self._options = options
        self._reader: _Reader | None = None

    def open(self) -> tuple[int, tuple[str, ...]]:
        """Return how many pages it has, and warnings."""
        request = {"open": os.fsencode(self._path).hex(), "options": self._options.to_json()}
        self._reader = _take_reader()
        seconds = self._options.limits.open_seconds
        count, warnings = self._ask(request, seconds, self._name, _decode_opened)
        if count < 1:
            raise DocumentError(f"{self._name}: there is nothing in it to be found")
        return count, warnings

    def make(self, number: int) -> SourcePage:
        what = f"page {number} of {self._name}"
        if self._reader is None:
            self.open()
        seconds = self._options.limits.page_seconds
        return replace(self._ask({"page": number}, seconds, what, decode_page), number=number)

    def close(self) -> None:
        if self._reader is None:
            return
        if self._path.suffix.lower() in OFFICE:
            self._drop_reader()  # LibreOffice's children end with it
            return
        with suppress(DocumentError):
            self._ask({"close": True}, _CLOSE_SECONDS, self._name, lambda header, blobs: None)
        if self._reader is not None:
            _give_back(self._reader)
        self._reader = None

    def _ask(
        self,
        request: dict[str, Any],
        seconds: float,
        what: str,
        decode: Callable[[dict[str, Any], list[bytes]], T],
    ) -> T:
        if self._reader is None:
            raise ValueError("there is no reader")
        try:
            header, blobs = self._reader.ask(request, seconds)
            if "error" not in header:
                return decode(header, blobs)
            reason = str(header["error"]).replace("\0", "").encode("utf-8", "backslashreplace")
        except DocumentError as error:
            self._drop_reader()
            raise DocumentError(f"{what}: {error}") from None
        except Exception:
            self._drop_reader()
            raise DocumentError(f"{what}: the reader's answer makes no sense") from None
        except BaseException:  # ctrl-C: the answer is still to come, and nobody waits for it
            self._drop_reader()
            raise
        raise DocumentError(f"{what}: {reason.decode()}")

    def _drop_reader(self) -> None:
        """Stop the reader; the next page gets another one."""
        if self._reader is not None:
            self._reader.stop()
        self._reader = None


def _decode_opened(header: dict[str, Any], blobs: list[bytes]) -> tuple[int, tuple[str, ...]]:
    return int(header["count"]), tuple(map(str, header["warnings"]))


class _Reader:
    """A reader process. Used by one thread at a time."""

    def __init__(self) -> None:
        self._home = ReaderHome()
        known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        if "PYTHONPATH" in known:  # relative folders are not those of the reader's own folder
            folders = known["PYTHONPATH"].split(os.pathsep)
            known["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, folders))
        home = self._home.path
        own = {"HOME": home, "TMPDIR": home, "TEMP": home, "OPENBLAS_NUM_THREADS": "1"}
        theirs, self._lifeline = os.pipe()  # closed when this process ends, however it does
        self._process = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-m", "pagevec.ingest.reader", str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=home,
            env={**known, **own},
            # Windows passes none: a reader ends there when it reads no further request.
            pass_fds=(theirs,) if _IS_POSIX else (),
            start_new_session=True,  # it is killed with all of its children
        )
        os.close(theirs)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], list[bytes]]:
        """Return the answer to a request.

        Raises:
            DocumentError: none came within `seconds`; the reader is of no more use.
            Exception: of any kind, if the answer is not a message.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("the reader has no pipes")
        # The answer may come in pieces: a reader that stops in the middle is killed, too.
        watch = threading.Timer(seconds, self.kill)
        watch.daemon = True
        started = time.monotonic()
        watch.start()
        try:
            send(cast(BinaryIO, stdin), request)
            message = receive(cast(BinaryIO, stdout))
        except (OSError, ValueError):
            message = None
        finally:
            watch.cancel()
        if message is not None:
            return message
        if time.monotonic() - started >= seconds:
            raise DocumentError(f"it took more than {seconds:g} s")
        raise DocumentError(self._describe_end())

    def kill(self) -> None:
        """Kill the process and its children."""
        if _IS_POSIX:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def stop(self) -> None:
        """Kill the process and its children, and remove what they have left."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._home.remove()
        with _lock:
            if self in _readers:
                _readers.remove(self)
                self.let_go()

    def let_go(self) -> None:
        """Close this process's end of the lifeline, and leave the home to its owner."""
        os.close(self._lifeline)
        self._home.let_go()

    def _describe_end(self) -> str:
        with suppress(subprocess.TimeoutExpired, ValueError):
            code = self._process.wait(timeout=1)
            if code < 0:
                return f"the reader crashed ({signal.Signals(-code).name})"
        return "the reader did not answer"


_readers: set[_Reader] = set()
_idle: list[_Reader] = []
_lock = threading.Lock()


def _take_reader() -> _Reader:
    while True:
        with _lock:
            reader = _idle.pop() if _idle else None
        if reader is None:
            break
        if reader.is_alive:
            return reader
        reader.stop()
    reader = _Reader()
    with _lock:
        _readers.add(reader)
    return reader


def _give_back(reader: _Reader) -> None:
    with _lock:
        is_kept = len(_idle) < _IDLE_READERS and reader in _readers
        if is_kept:
            _idle.append(reader)
    if not is_kept:
        reader.stop()


def interrupt_readers() -> None:
    """Kill the readers of this process that are at work: the pages at hand fail at once."""
    with _lock:
        busy = _readers.difference(_idle)
    for reader in busy:
        reader.kill()


@atexit.register
def stop_readers() -> None:
    """Stop the readers of this process, with their children."""
    with _lock:
        readers, _idle[:] = list(_readers), []
    for reader in readers:
        reader.stop()


def _forget_readers() -> None:
    """Leave the readers of the process that was forked to it."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    for reader in _readers:
        reader.let_go()
    _idle.clear()
    _readers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_readers)
