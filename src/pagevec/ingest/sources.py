"""Find the documents among files, folders and objects, and count what is passed over."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from pagevec.errors import InvalidRequest
from pagevec.ingest.addresses import Address
from pagevec.ingest.objects import ObjectStore, RemoteObject
from pagevec.ingest.suffixes import SUFFIXES

# Names that programs give to files which are no documents: locks of Office and LibreOffice.
LOCKS = ("~$", ".~lock.")

_LEADS_OUT = "link{s} leading out of the folder"

STORE_FILE = "pages.sqlite3"
STORE_FILES = frozenset({STORE_FILE, "pages.qdrant"})
"""A folder with a file of this name is a store of pagevec's own."""


Place = Path | Address
"""A path of this machine, or an address of objects."""


@dataclass(frozen=True)
class FoundDocument:
    """A document on disk, or in an object store.

    Attributes:
        folder: the folder that was searched, or in which the file was named; absolute.
        below: path of the file below that folder.
        path: the file, or the object.
    """

    folder: Place
    below: PurePath
    path: Path | RemoteObject


@dataclass
class Found:
    """Documents that were found, and what was passed over.

    Attributes:
        documents: each file once, in order.
        passed_over: how many files and folders, by the reason, in which `{s}` stands for the
            ending of a plural.
        unreadable: folders, and files in folders, that could not be looked into.
        links: links in a folder that lead out of it and were not followed.
    """

    documents: list[FoundDocument] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """Return a line for each reason for which something was passed over."""
        counts = sorted(self.passed_over.items())
        lines = [
            f"passed over: {count} {reason.replace('{s}', '' if count == 1 else 's', 1)}"
            for reason, count in counts
            if count
        ]
        return [*lines, *(f"cannot be read: {escape(place)}" for place in self.unreadable)]

    def describe_links(self) -> list[str]:
        """Return a line for each link that was not followed."""
        return [f"not followed, as it leads out of its folder: {escape(one)}" for one in self.links]


def find_documents(paths: Sequence[Place], *, follow_links: bool = False) -> Found:
    """Find the documents among `paths`: files, objects, and all documents below folders.

    In folders hidden files, locks of Office programs, files of other types, links that lead out of
    the folder and pagevec's own stores are passed over, and counted.

    Args:
        paths: files, folders and addresses; a path that is a link is followed.
        follow_links: whether links in a folder that lead out of it are followed, too. Whoever can
            write into the folder decides then which files of this machine are read.

    Raises:
        InvalidRequest: a path does not exist, or is itself a file of an unsupported type. All
            paths at fault are named.
        ObjectError: an address cannot be listed completely.
    """
    faults = [fault for path in paths if isinstance(path, Path) and (fault := _fault(path))]
    if faults:
        raise InvalidRequest("; ".join(faults))
    found = Found()
    seen: set[Place] = set()
    for path in paths:
        if isinstance(path, Address):
            for one in _find_objects(path, found):
                _add_once(one, one.folder / one.below, seen, found)
            continue
        above = path if path.is_dir() else path.parent
        files = _walk(path, found, follow_links) if path.is_dir() else [path]
        for file in files:
            document = FoundDocument(above.resolve(), file.relative_to(above), file)
            _add_once(document, file.resolve(), seen, found)
    return found


def escape(name: str) -> str:
    r"""Return `name` with bytes that are not UTF-8 as `\xe9`: stores and JSON take text alone."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _add_once(document: FoundDocument, place: Place, seen: set[Place], found: Found) -> None:
    if place in seen:
        found.passed_over["file{s} named twice"] += 1
        return
    seen.add(place)
    found.documents.append(document)


def _find_objects(address: Address, found: Found) -> Iterator[FoundDocument]:
    """Yield the object at an address, or the documents among the objects below it."""
    store = ObjectStore(address)
    if (itself := store.find()) is not None:
        if _suffix(address.name) not in SUFFIXES:
            raise InvalidRequest(_describe_other_type(address.name, address))
        yield FoundDocument(address.parent, PurePosixPath(address.name), itself)
        return
    for here, folders, objects, odd in store.walk():
        found.passed_over["name{s} of what is no object"] += odd
        names = {one.address.name for one in objects}
        if STORE_FILE in names:
            found.passed_over["store{s} of pagevec"] += 1
            folders.clear()
            continue
        hidden = {name for name in folders if name.startswith(".")}
        found.passed_over["hidden folder{s}"] += len(hidden)
        folders[:] = [name for name in folders if name not in hidden]
        for one in objects:
            if reason := _reason_in_name(one.address.name):
                found.passed_over[reason] += 1
            else:
                yield FoundDocument(address, here / one.address.name, one)


def _fault(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"no such file or folder: {path}"
    except OSError as error:
        return f"cannot be read: {path} ({error.strerror})"
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISREG(mode):
        return f"neither a file nor a folder: {path}"
    return None if _suffix(path.name) in SUFFIXES else _describe_other_type(path.name, path)


def _describe_other_type(name: str, place: Place) -> str:
    kinds = ", ".join(sorted(SUFFIXES))
    return f"unsupported file type {PurePath(name).suffix!r}: {place} (supported: {kinds})"


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _walk(folder: Path, found: Found, follow_links: bool) -> Iterator[Path]:
    """Yield the documents below `folder`, in the order of their names.

    Folders behind links come last, each once, so that none is found through a link that is also
    below `folder` itself, and loops of links end.
    """
    root = folder.resolve()
    seen: set[Path] = set()
    waiting = [folder]

    def note(error: OSError) -> None:
        found.unreadable.append(str(error.filename))

    for start in waiting:
        for place, folders, files in os.walk(start, onerror=note):
            here = Path(place)
            if here.resolve() in seen:
                found.passed_over["folder{s} reached twice"] += 1
                folders.clear()
                continue
            seen.add(here.resolve())
            if not STORE_FILES.isdisjoint(files):
                found.passed_over["store{s} of pagevec"] += 1
                folders.clear()
                continue
            hidden = {name for name in folders if name.startswith(".")}
            links = {name for name in folders if os.path.islink(here / name)} - hidden  # noqa: PTH114
            found.passed_over["hidden folder{s}"] += len(hidden)
            folders[:] = sorted(set(folders) - hidden - links)
            for link in (here / name for name in sorted(links)):
                if follow_links and _leads_out(link, root):
                    waiting.append(link)
                    continue
                found.passed_over["link{s} to folders"] += 1
                if _leads_out(link, root):
                    found.links.append(str(link))
            for name in sorted(files):
                yield from _judge(here / name, root, found, follow_links)


def _judge(file: Path, root: Path, found: Found, follow_links: bool) -> Iterator[Path]:
    """Yield a file if it is a document; otherwise note why it is none."""
    try:
        reason = _reason_to_pass_over(file, root, follow_links)
    except OSError:  # of a folder that may be listed but not entered
        found.unreadable.append(str(file))
        return
    if reason is None:
        yield file
        return
    found.passed_over[reason] += 1
    if reason == _LEADS_OUT:
        found.links.append(str(file))


def _leads_out(link: Path, root: Path) -> bool:
    return not link.resolve().is_relative_to(root)


def _reason_to_pass_over(file: Path, root: Path, follow_links: bool) -> str | None:
    if reason := _reason_in_name(file.name):
        return reason
    if not follow_links and file.is_symlink() and _leads_out(file, root):
        return _LEADS_OUT
    if not file.is_file():
        return "name{s} of what is no file"
    return None


def _reason_in_name(name: str) -> str | None:
    if name.startswith(LOCKS):
        return "lock file{s} of Office programs"
    if name.startswith("."):
        return "hidden file{s}"
    if _suffix(name) not in SUFFIXES:
        return f"file{{s}} of other types ({_suffix(name) or 'no suffix'})"
    return None
