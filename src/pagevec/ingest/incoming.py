"""A file on its way to the folder of uploads: written as it arrives, if there is room."""

import errno
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pagevec.errors import StorageFull, StoreError
from pagevec.ingest.filenames import clean_filename

_FREE_BYTES = 256 << 20  # that an upload leaves on the disk


class Room:
    """How many bytes the files of a folder have, and may have. Thread-safe.

    Args:
        folder: on the disk that they are on.
        most: bytes of all of them.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._taken = 0
        self._lock = threading.Lock()

    def count(self, taken: int) -> None:
        """Count bytes that are there already, however many they are."""
        with self._lock:
            self._taken += taken

    def take(self, count: int) -> None:
        """Take bytes that are to be written, or give back where `count` is negative.

        Raises:
            StorageFull: there is no room for them.
        """
        with self._lock:
            if count > 0 and self._taken + count > self._most:
                raise StorageFull(
                    f"all uploads together have {self._most:,} bytes at most "
                    "(PAGEVEC_MAX_UPLOADS_BYTES): remove documents first"
                )
            if count > 0 and shutil.disk_usage(self._folder).free < count + _FREE_BYTES:
                raise StorageFull("the disk of the service is almost full: remove documents first")
            self._taken += count


class Incoming:
    """A file that is being received. Its methods block.

    Args:
        folder: where it is written to.
        room: from which it takes what it needs.
        filename: as its sender calls it.

    Attributes:
        below: path below the label that its document gets.
        file: where it is until it is accepted.

    Raises:
        InvalidRequest: the name is none, or of a type that is not read here.
        StoreError: the folder cannot be written.
    """

    def __init__(self, folder: Path, room: Room, filename: str) -> None:
        self.below = clean_filename(filename)
        self.file = folder / uuid.uuid4().hex
        self._room = room
        self._hash = hashlib.sha256()
        self._bytes = 0
        with in_words():
            self._opened: BinaryIO = self.file.open("xb")

    def write(self, data: bytes | bytearray) -> None:
        """Add `data`.

        Raises:
            StorageFull: there is no room for it.
            StoreError: the folder cannot be written.
        """
        self._hash.update(data)
        with in_words():
            self._room.take(len(data))
            self._bytes += len(data)
            self._opened.write(data)

    def finish(self) -> str:
        """Write everything to the disk, and return the hash of the content."""
        with in_words():
            self._opened.flush()
            os.fsync(self._opened.fileno())
            self._opened.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the file, unless it was accepted."""
        with suppress(OSError):
            self._opened.close()
        with suppress(OSError):
            self.file.unlink()
            self._room.take(-self._bytes)


@contextmanager
def in_words() -> Iterator[None]:
    """Raise what the disk refuses as an error that callers understand."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the disk of the service is full: remove documents first") from None
        raise StoreError(f"the folder for uploads cannot be used: {error.strerror}") from error
