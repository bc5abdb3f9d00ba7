"""The folders in which readers work and copies lie. What a killed process left goes later."""

import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_PREFIX, _LOCK = "pagevec-reader-", ".lock"


class ReaderHome:
    """A new temporary folder, locked for as long as this process lives.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        remove_old_homes()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = _lock(Path(self.path))

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.let_go()

    def let_go(self) -> None:
        """Leave the folder to the process that this one was forked from."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


@cache
def remove_old_homes() -> None:
    """Remove the folders of processes that were killed; once in a process."""
    if os.name != "posix":  # nothing tells there whether they are in use
        return
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, another user's, or was never locked
            lock = os.open(home / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                _take(lock)
                shutil.rmtree(home, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(home: Path) -> int | None:
    """Return the descriptor of a file in `home` that is locked once it has its name."""
    if os.name != "posix":
        return None
    draft = home / f"{_LOCK}.draft"
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _take(lock)
    draft.rename(home / _LOCK)
    return lock


def _take(lock: int) -> None:
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
