"""A plain file beside a store's database, with the sign bits of its pages.

The database has the bits of each page, too, and a small store needs no more. Of a large one a
search compares the bits of up to a hundred thousand pages, scattered over all: each takes 30 us to
read from the database, in one thread at a time, and 4 us from a plain file, in several at once.

The file has nothing but bits, page after page; where those of a page are, and the sum of their
words, is in the database. So what a crash leaves of an addition is never looked at, and is written
over by the next one; and bits that are not as they were written are noticed, said, and made anew.
The file is read by system calls: one that is mapped, and cut meanwhile, kills the process. It only
ever grows: the one that takes its place has another name.
"""

import logging
import os
import re
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import StoreError
from pagevec.stores.codec import unpack_signs
from pagevec.stores.hamming import BLOCK
from pagevec.stores.probe import PackedBits, Words, as_words
from pagevec.stores.sqlite.database import Database
from pagevec.stores.sqlite.segments import Ids, has_pages, read_waiting

log = logging.getLogger(__name__)

WORTH_IT = 10_000
"""Pages from which on a store has the file."""

_AT_ONCE = 1024
"""Pages that are appended at a time: 10 MB of those of the bundled model."""
_NAME = re.compile(r"bits-[0-9a-f]{12}")
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux has it
_WORD = 8
_PLACE = np.dtype([("page", "<u4"), ("rows", "<u4"), ("sum", "<u8")])
_WHERE = np.dtype([("start", np.int64), ("rows", np.int64), ("sum", np.uint64)])

_KNOWN = """
SELECT name, revision, (SELECT coalesce(max(start + size), 0) FROM bits_parts) FROM bits_file"""
_LATER_PARTS = "SELECT part, start, size, places FROM bits_parts WHERE part > ? ORDER BY part"
_LAST_PAGE = "SELECT seq FROM sqlite_sequence WHERE name = 'pages'"  # deleted ones count
_IS_BEHIND = "SELECT EXISTS (SELECT 1 FROM centroids WHERE revision > ?)"
_COUNTS = """
SELECT (SELECT count(*) FROM pages), (SELECT coalesce(sum(length(places)), 0) FROM bits_parts)"""
_ADD_PART = "INSERT INTO bits_parts (start, size, places) VALUES (?, ?, ?)"
# All pages of a revision: those after it are the next ones.
_NEXT = """
SELECT id, revision, packed FROM pages JOIN bits ON page = id
WHERE revision > ?1 AND revision <= (SELECT revision FROM centroids) AND revision <= (
    SELECT max(revision) FROM (
        SELECT revision FROM pages WHERE revision > ?1 ORDER BY revision LIMIT ?2
    )
)"""


class _Known(NamedTuple):
    """The file as of a transaction: up to which revision it has pages, and where they end."""

    name: str
    revision: int
    end: int


class _UnusableError(Exception):
    """The file is not as it was written."""


class _File:
    """An open file, and where it has the bits of each page.

    It is closed once nobody uses it: a search may still read it while another one has found that
    a new file took its place.

    Args:
        stream: the file, open to be read.

    Attributes:
        name: of the file.
        places: by the id of a page: the byte at which its bits begin, the number of its vectors (0
            if it has none here), the sum of their words.
    """

    def __init__(self, stream: FileIO) -> None:
        self._stream = stream
        self._part = 0
        self.name = Path(str(stream.name)).name
        self.places = np.zeros(0, _WHERE)

    def __del__(self) -> None:
        self._stream.close()

    def catch_up(self, connection: sqlite3.Connection, known: _Known) -> None:
        """Learn of the parts that came since.

        Raises:
            _UnusableError: the file does not have them.
        """
        if os.fstat(self._stream.fileno()).st_size < known.end:
            raise _UnusableError("it is cut off")
        [(last,)] = connection.execute(_LAST_PAGE)
        for part, start, size, packed in connection.execute(_LATER_PARTS, [self._part]):
            try:
                self._learn(np.frombuffer(packed, _PLACE), start, size, last)
            except (ValueError, TypeError):
                raise _UnusableError("where it has the bits of a page is lost") from None
            self._part = part

    def _learn(self, there: NDArray[Any], start: int, size: int, last: int) -> None:
        lengths, highest = there["rows"].astype(np.int64), int(there["page"].max(initial=0))
        width, rest = divmod(size, max(1, int(lengths.sum())))
        # Memory is taken by what they say, so that it has to be possible.
        if rest or highest > last or _WORD * lengths.sum() > size:
            raise ValueError("its places are not those of the part")
        missing = highest + 1 - len(self.places)
        if missing > 0:
            room = np.zeros(missing + len(self.places) // 4, _WHERE)
            self.places = np.concatenate([self.places, room])
        new = np.empty(len(there), _WHERE)
        new["start"] = start + (np.cumsum(lengths) - lengths) * width
        new["rows"], new["sum"] = lengths, there["sum"]
        self.places[there["page"]] = new

    def read(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        """Read bytes from several places, as far as there are some.

        Args:
            parts: the byte at which each begins, and what takes it.
        """
        descriptor, waiting = self._stream.fileno(), []
        for start, into in parts:
            if not _read_cached(descriptor, start, into):
                waiting.append((start, into))
        for start, into in waiting if hasattr(os, "posix_fadvise") else ():
            with suppress(OSError):  # advice, which the disk follows for all of them at once
                os.posix_fadvise(descriptor, start, len(into), os.POSIX_FADV_WILLNEED)
        for start, into in waiting:
            _read(descriptor, start, into)

    def close(self) -> None:
        self._stream.close()


@dataclass(eq=False)
class FileBlock:
    """The bits of some pages, read when they are compared, as `probe.Block` says.

    Attributes:
        file: has them.
        ids: of the pages.
        places: of their bits.
        damaged: pages whose bits are not as they were written, once they were read.
    """

    file: _File
    ids: Ids
    places: NDArray[Any]
    damaged: Ids = field(default_factory=lambda: np.empty(0, np.uint32))

    @property
    def lengths(self) -> Sequence[int]:
        lengths: list[int] = self.places["rows"].tolist()
        return lengths

    def fill(self, joined: PackedBits) -> None:
        flat, width = memoryview(joined.reshape(-1).data), joined.shape[1]
        ends = np.cumsum([0, *self.lengths])
        parts = [flat[first:last] for first, last in pairwise((ends * width).tolist())]
        self.file.read(list(zip(self.places["start"].tolist(), parts, strict=True)))
        sums = _sum_words(joined.view(np.uint64), ends[:-1])
        self.damaged = self.ids[sums != self.places["sum"]]


class BitsFile:
    """The file of a store. Thread-safe.

    Args:
        database: the store's database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._open: _File | None = None
        self._distrusted: set[str] = set()

    def find(self, connection: sqlite3.Connection, ids: Ids) -> tuple[list[FileBlock], Ids]:
        """Return blocks of those of the pages whose bits are in the file, and the other pages.

        Args:
            connection: a connection in a transaction.
            ids: of pages, in the order in which they are read.
        """
        known = _known(connection)
        if known is None or known.name in self._distrusted:
            return [], ids
        try:
            file, places = self._places(connection, known, ids)
        except (_UnusableError, OSError) as error:
            self._distrust(known.name, error)
            return [], ids
        # Of a page that was replaced since, the file has the former vectors.
        is_there = places["rows"] > 0
        is_there &= ~np.isin(ids, read_waiting(connection, known.revision))
        found, places = ids[is_there], places[is_there]
        parts = [slice(first, first + BLOCK) for first in range(0, len(found), BLOCK)]
        return [FileBlock(file, found[part], places[part]) for part in parts], ids[~is_there]

    def check(self, blocks: Sequence[FileBlock]) -> Ids:
        """Return the pages of the blocks whose bits are not as they were written; say so."""
        damaged = [block.damaged for block in blocks if len(block.damaged)]
        if damaged:
            self._distrust(blocks[0].file.name, _UnusableError("it has other bits than its pages"))
        return np.concatenate([np.empty(0, np.uint32), *damaged])

    def extend(self) -> int:
        """Append the bits of some of the pages that came into the lists since.

        Returns:
            How many pages these are; 0 if there are none, or another process appended them.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._database.reading() as connection:
            known = _known(connection)
            [(is_behind,)] = connection.execute(_IS_BEHIND, [known.revision if known else 0])
            is_possible = hasattr(os, "preadv")  # Windows has none
            if not (is_behind and is_possible and has_pages(connection, WORTH_IT)):
                return 0
            if known and not self._can_grow(connection, known):
                self._forget(known.name)
                known = None
            rows = connection.execute(_NEXT, (known.revision if known else 0, _AT_ONCE)).fetchall()
            [(dim,)] = connection.execute("SELECT dim FROM store")
        if not rows:
            return 0
        bits, places = _pack(rows, dim)
        with self._database.writing() as connection:
            if _known(connection) != known:
                return 0
            name, _, end = known or self._begin(connection)
            self._write(name, end, bits)
            connection.execute(_ADD_PART, (end, len(bits), places))
            until = max(revision for _, revision, _ in rows)
            connection.execute("UPDATE bits_file SET revision = ?", [until])
        return len(rows)

    def close(self) -> None:
        """Close the file, if it is open."""
        with self._lock:
            if self._open:
                self._open.close()
            self._open = None

    def _places(
        self, connection: sqlite3.Connection, known: _Known, ids: Ids
    ) -> tuple[_File, NDArray[Any]]:
        with self._lock:
            if self._open is None or self._open.name != known.name:
                file = self._database.file.with_name(known.name)
                self._open = _File(file.open("rb", buffering=0))
            self._open.catch_up(connection, known)
            there = self._open.places
            places = np.zeros(len(ids), _WHERE)
            places[ids < len(there)] = there[ids[ids < len(there)]]
            return self._open, places

    def _distrust(self, name: str, reason: Exception) -> None:
        """Use a file no longer, say why, and have another one made."""
        self._distrusted.add(name)
        # A copy of the database has no file, and nothing is wrong with that.
        level = logging.INFO if isinstance(reason, FileNotFoundError) else logging.WARNING
        log.log(
            level,
            "%s cannot be used (%s): sign bits are read from the database, which is slower, until "
            "the file is made anew, which begins with the next page that is stored",
            self._database.file.with_name(name),
            reason.strerror if isinstance(reason, OSError) else reason,
        )
        with suppress(StoreError):  # the store cannot be written
            self._forget(name)

    def _can_grow(self, connection: sqlite3.Connection, known: _Known) -> bool:
        """Whether the file can be written, and half of it at least is of pages that are there."""
        [(pages, appended)] = connection.execute(_COUNTS)
        is_used = 2 * _PLACE.itemsize * pages >= appended
        return is_used and os.access(self._database.file.with_name(known.name), os.W_OK)

    def _forget(self, name: str) -> None:
        """Delete a file, unless another process has begun another one meanwhile."""
        with self._database.writing() as connection:
            known = _known(connection)
            if known is None or known.name != name:
                return
            connection.execute("DELETE FROM bits_file")
            connection.execute("DELETE FROM bits_parts")
        _remove(self._database.file.with_name(name))

    def _begin(self, connection: sqlite3.Connection) -> _Known:
        """Begin an empty file, beside which there is no other then."""
        with suppress(OSError):  # the folder cannot be listed
            for file in list(self._database.file.parent.iterdir()):
                if _NAME.fullmatch(file.name):  # of a transaction that was undone
                    _remove(file)
        name = f"bits-{uuid4().hex[:12]}"
        connection.execute("INSERT INTO bits_file VALUES (?, 0)", [name])
        return _Known(name, 0, 0)

    def _write(self, name: str, start: int, bits: bytes) -> None:
        file = self._database.file.with_name(name)
        try:
            # Who may not read the database may not read these, either.
            mode = stat.S_IMODE(self._database.file.stat().st_mode)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, mode)
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                stream.seek(start)
                while bits:
                    bits = bits[stream.write(bits) :]
                os.fsync(stream.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {file}: {error.strerror}") from error


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _read(descriptor: int, start: int, into: memoryview) -> None:
    """Read as many bytes as there is room for, or as there are."""
    done = 0
    with suppress(OSError):  # of the disk: what was not read has another sum
        while count := os.preadv(descriptor, [into[done:]], start + done):
            done += count


def _read_cached(descriptor: int, start: int, into: memoryview) -> bool:
    """Read bytes if the system has them in its cache, and tells it."""
    if _NO_WAIT is None:
        return False
    try:
        return os.preadv(descriptor, [into], start, _NO_WAIT) == len(into)
    except OSError:  # they are not there, or the file system does not tell
        return False


def _known(connection: sqlite3.Connection) -> _Known | None:
    return next(map(_Known._make, connection.execute(_KNOWN)), None)


def _pack(rows: Sequence[tuple[int, int, bytes]], dim: int) -> tuple[bytes, bytes]:
    """Return the bits of pages as the file has them, and their places as the database has them."""
    ids, made = list[int](), list[Words]()
    for page, _, packed in rows:
        # Damaged ones stay where they are: the search that meets them names them.
        with suppress(ValueError, TypeError):
            words = as_words(unpack_signs(packed, dim), -(-dim // 64))
            if len(words):
                ids.append(page)
                made.append(words)
    places = np.zeros(len(ids), _PLACE)
    if ids:
        lengths = np.array([len(words) for words in made])
        joined = np.concatenate(made)
        places["page"], places["rows"] = ids, lengths
        places["sum"] = _sum_words(joined, lengths.cumsum() - lengths)
        return joined.tobytes(), places.tobytes()
    return b"", b""


def _sum_words(joined: Words, starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return for each page the sum of the words of its vectors, without what runs over.

    Args:
        joined: words of vectors, uint64 (vectors, words).
        starts: the vector at which each page begins.
    """
    sums: NDArray[np.uint64] = np.add.reduceat(joined.ravel(), starts * joined.shape[1])
    return sums
