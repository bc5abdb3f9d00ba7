"""Documents in object stores, and in whatever other filesystem fsspec reaches by an address.

Objects are listed, and fetched to a temporary file when their turn comes. Whatever a filesystem is
asked has a deadline, and is asked again where that may help. Credentials are those that each
filesystem finds in the environment; none is kept, and none is shown.
"""

import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pagevec.errors import ConfigurationError, InvalidRequest, ObjectError
from pagevec.extras import how_to_install
from pagevec.ingest.addresses import Address
from pagevec.ingest.homes import ReaderHome
from pagevec.secrets import mask_environment, mask_secrets

T = TypeVar("T")

_LIST_SECONDS = 600.0  # for one folder, which may have a million objects
_ASK_SECONDS = 60.0
_SLOWEST = 64 * 1024  # bytes a second, beyond `_ASK_SECONDS`
_ATTEMPTS, _PAUSE = 3, 0.5  # seconds, doubled each time
_FREE_BYTES = 256 << 20  # that a fetched object leaves on the disk
_MOST_UNTOLD = 1 << 30  # bytes of an object whose size is not told
_RECENT_SECONDS = 60.0

# What tells that an object is the same as before, in the words of s3fs, gcsfs, adlfs and others.
_TAGS = ("ETag", "etag", "content_hash", "checksum", "sha")
_TIMES = ("LastModified", "last_modified", "updated", "modified", "mtime", "created")
_KINDS = ("file", "directory")
_FINAL = (
    FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, NotImplementedError,
    ImportError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class RemoteObject:
    """An object that was listed.

    Attributes:
        address: its own.
        size: in bytes, where the filesystem tells it.
        version: what is another one once the object has changed: its ETag or its time, and its
            size. None where the filesystem tells nothing that could be trusted.
    """

    address: Address
    size: int | None
    version: str | None
    _store: "ObjectStore" = field(repr=False, compare=False)

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """Give a copy of the object, a file which is removed at the end of the block.

        Where the disk has no room for it, this waits until other copies are gone.

        Raises:
            ObjectError: it cannot be fetched, or there is no room for it.
        """
        home = ReaderHome()
        try:
            with _disk.room_for(self):
                file = Path(home.path) / f"document{PurePosixPath(self.address.name).suffix}"
                self._store.fetch(self, file)
                _disk.note_fetched(self)
                yield file
        finally:
            home.remove()


class ObjectStore:
    """The filesystem that an address leads to. Its methods may be called from several threads.

    Args:
        address: of an object, or of what holds objects.

    Raises:
        ConfigurationError: a package is missing.
        InvalidRequest: fsspec knows no filesystem of this scheme.
        ObjectError: the filesystem cannot be opened.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        # Nothing is remembered: what changed meanwhile shall be seen.
        self._fs, place = _ask(address, _ASK_SECONDS, partial(_open_filesystem, address))
        self._root = place.rstrip("/")

    def find(self) -> RemoteObject | None:
        """Return the object at the address itself; None if it is a folder of objects.

        Raises:
            InvalidRequest: there is nothing.
            ObjectError: the filesystem does not tell.
        """
        try:
            info = self._info(self._root)
        except FileNotFoundError:
            raise InvalidRequest(f"there is nothing at {self.address}") from None
        is_object = info["type"] == "file"
        return self._object(self.address, info) if is_object else None

    def walk(self) -> Iterator[tuple[PurePosixPath, list[str], list[RemoteObject], int]]:
        """Walk over what is below the address, as `os.walk` does.

        Yields:
            The path of a folder below the address, the names of its folders, of which those are
            left out that the caller takes from the list, its objects, and how many names it has
            that no folder can hold, such as an empty one.

        Raises:
            ObjectError: a folder cannot be listed.
        """
        waiting = [PurePosixPath()]
        for here in waiting:
            place = self._root if here == PurePosixPath() else f"{self._root}/{here}"
            folders, objects, odd = list[str](), list[RemoteObject](), 0
            for info in self._list(place):
                name = info["name"].removeprefix(place).strip("/")
                if "/" in name or name in ("", ".", "..") or info["type"] not in _KINDS:
                    odd += not _stands_for(place, info)
                elif info["type"] == "directory":
                    folders.append(name)
                else:
                    objects.append(self._object(self.address / (here / name), info))
            yield here, folders, sorted(objects, key=lambda one: one.address), odd
            waiting += [here / name for name in sorted(folders)]

    def fetch(self, wanted: RemoteObject, file: Path) -> None:
        """Copy an object to `file`.

        Raises:
            ObjectError: it cannot be fetched, or changes all the time.
        """
        seconds = _ASK_SECONDS + (_MOST_UNTOLD if wanted.size is None else wanted.size) / _SLOWEST
        copy = partial(self._copy, wanted.address, file.parent, seconds)
        _ask(wanted.address, seconds, copy).replace(file)

    def is_gone(self, address: Address) -> bool:
        """Whether there is certainly no such object, rather than one that cannot be reached."""
        try:
            self._info(self._place(address))
        except FileNotFoundError:
            return True
        except ObjectError:
            return False
        return False

    def _place(self, address: Address) -> str:
        below = address.below(self.address)
        return self._root if below is None else f"{self._root}/{below}"

    def _object(self, address: Address, info: Mapping[str, Any]) -> RemoteObject:
        size = info.get("size")
        return RemoteObject(address, None if size is None else int(size), _version(info), self)

    def _info(self, place: str) -> Mapping[str, Any]:
        info: Mapping[str, Any] = _ask(
            self.address, _ASK_SECONDS, lambda: self._fs.info(place), passing=FileNotFoundError
        )
        return info

    def _list(self, place: str) -> list[Mapping[str, Any]]:
        # `walk` and `find` of fsspec leave out folders that cannot be listed, without a word.
        listed: list[Mapping[str, Any]] = _ask(
            self.address, _LIST_SECONDS, lambda: self._fs.ls(place, detail=True)
        )
        return listed

    def _copy(self, address: Address, folder: Path, seconds: float) -> Path:
        """Copy an object to a file of its own: nobody stops a copy that is not waited for."""
        from fsspec.callbacks import Callback

        place, file = self._place(address), folder / uuid.uuid4().hex
        before = self._object(address, self._fs.info(place))
        most = _MOST_UNTOLD if before.size is None else before.size
        ends = time.monotonic() + seconds

        class Watch(Callback):  # type: ignore[misc] # fsspec has no types
            """Ends a copy that takes too long, or that grows beyond its size."""

            def call(self, *_: Any, **__: Any) -> None:
                if self.value > most:
                    raise OSError(f"more than its {most:,} bytes came")
                if time.monotonic() > ends:
                    raise OSError("it came too slowly")

        self._fs.get_file(place, str(file), callback=Watch())
        after = self._object(address, self._fs.info(place))
        if (before.version, before.size) != (after.version, after.size):
            raise OSError("it changed while it was fetched; ingest it again")
        if before.size not in (None, file.stat().st_size):
            raise OSError(f"{file.stat().st_size:,} of its {before.size:,} bytes came")
        return file


def find_gone(root: Address, places: Collection[Address]) -> set[Address]:
    """Return those of `places`, each `root` itself or below it, whose objects are certainly gone.

    An object is gone when it is not listed beside others, and not found either.

    Raises:
        PagevecError: that cannot be told: nothing is listed there, or it cannot be listed.
    """
    if root in places:
        store = ObjectStore(root.parent)
        _, _, beside, _ = next(store.walk())
        there = {one.address for one in beside}
    else:
        store = ObjectStore(root)
        there = {one.address for _, _, objects, _ in store.walk() for one in objects}
    if not there:
        raise ObjectError(f"{store.address} is empty")
    return {one for one in places if one not in there and store.is_gone(one)}


class _Disk:
    """The disk for fetched objects: one that does not fit waits for those before it."""

    def __init__(self) -> None:
        self._at_hand: set[int] = set()
        self._on_the_way: dict[int, int] = {}
        self._changed = threading.Condition()

    @contextmanager
    def room_for(self, wanted: RemoteObject) -> Iterator[None]:
        """Keep room for an object until the end of the block."""
        key, size = id(wanted), wanted.size or 0
        with self._changed:
            while self._free_bytes() < size:
                if not self._at_hand:
                    raise ObjectError(
                        f"{wanted.address} has {size:,} bytes, for which {tempfile.gettempdir()} "
                        "has no room: set TMPDIR to a folder that has"
                    )
                self._changed.wait(1.0)
            self._at_hand.add(key)
            self._on_the_way[key] = size
        try:
            yield
        finally:
            self.note_fetched(wanted)
            with self._changed:
                self._at_hand.discard(key)
                self._changed.notify_all()

    def note_fetched(self, wanted: RemoteObject) -> None:
        """Note that all of an object is written."""
        with self._changed:
            self._on_the_way.pop(id(wanted), None)

    def _free_bytes(self) -> int:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        return free - _FREE_BYTES - sum(self._on_the_way.values())


_disk = _Disk()


def _open_filesystem(address: Address) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ConfigurationError(
            f"{address}: addresses need fsspec: {how_to_install('fsspec')}"
        ) from None
    try:
        filesystem, place = url_to_fs(
            address.text, use_listings_cache=False, skip_instance_cache=True
        )
    except ImportError as error:  # fsspec names the package
        raise ConfigurationError(f"{address}: {error}") from None
    except ValueError as error:
        raise InvalidRequest(f"{address}: {error}") from None
    return filesystem, place


def _ask(
    address: Address,
    seconds: float,
    call: Callable[[], T],
    passing: type[Exception] = ConfigurationError,
) -> T:
    """Return what `call` returns, which is tried again where that may help.

    Args:
        address: what it is about.
        seconds: that one try may take. What takes longer goes on in its thread, and is forgotten.
        call: asks a filesystem.
        passing: what is raised as it is, besides the errors of pagevec.

    Raises:
        ObjectError: it failed.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            return _within(seconds, call)
        except (passing, ConfigurationError, InvalidRequest):
            raise
        except Exception as error:
            reason = _describe(error)
            if isinstance(error, _FINAL):
                break
    raise ObjectError(f"{address} cannot be read: {reason}")


def _within(seconds: float, call: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="pagevec-object", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def _describe(error: Exception) -> str:
    """Return what a filesystem says about an error, without secrets, on one line."""
    said = " ".join(mask_environment(mask_secrets(str(error))).split())[:300]
    match error:
        case FileNotFoundError():
            return "there is nothing"
        case PermissionError():
            return f"access is denied ({said})"
    return said or type(error).__name__


def _stands_for(place: str, info: Mapping[str, Any]) -> bool:
    """Whether a name in a listing is the folder itself: the empty object that some tools make."""
    is_itself = info["name"] == place or (info["name"] == f"{place}/" and info["type"] == "file")
    return is_itself and not info.get("size")


def _version(info: Mapping[str, Any]) -> str | None:
    tag = next((str(info[name]).strip('"') for name in _TAGS if info.get(name)), None)
    changed = next((info[name] for name in _TIMES if info.get(name)), None)
    if tag is None and (changed is None or _is_recent(changed)):
        return None
    return f"{tag or changed} {info.get('size')}"


def _is_recent(changed: Any) -> bool:
    """Whether another change may come within the same tick of the clock that tells the time."""
    if isinstance(changed, datetime):
        changed = (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
    return isinstance(changed, int | float) and time.time() - changed < _RECENT_SECONDS
