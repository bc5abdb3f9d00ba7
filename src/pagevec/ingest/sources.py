"""Find the documents among files and folders, and count what is passed over."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.openers import SUFFIXES

# Names that programs give to files which are no documents: locks of Office and LibreOffice.
LOCKS = ("~$", ".~lock.")

STORE_FILE = "pages.sqlite3"
"""A folder with a file of this name is a store of pagevec's own."""


@dataclass(frozen=True)
class FoundDocument:
    """A document on disk.

    Attributes:
        folder: the folder that was searched, or in which the file was named; absolute.
        below: path of the file below that folder.
        path: the file.
    """

    folder: Path
    below: Path
    path: Path


@dataclass
class Found:
    """Documents that were found, and what was passed over.

    Attributes:
        documents: each file once, in order.
        passed_over: how many files and folders, by the reason.
        unreadable: folders, and files in folders, that could not be looked into.
    """

    documents: list[FoundDocument] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """Return a line for each reason for which something was passed over."""
        counts = sorted(self.passed_over.items())
        lines = [f"passed over: {count} {reason}" for reason, count in counts if count]
        return [*lines, *(f"cannot be read: {escape(place)}" for place in self.unreadable)]


def find_documents(paths: Sequence[Path]) -> Found:
    """Find the documents among `paths`: files, and all documents below folders.

    In folders hidden files, locks of Office programs, files of other types, links that lead out of
    the folder and pagevec's own stores are passed over, and counted.

    Raises:
        InvalidRequest: a path does not exist, or is itself a file of an unsupported type. All
            paths at fault are named.
    """
    faults = [fault for path in paths if (fault := _fault(path))]
    if faults:
        raise InvalidRequest("; ".join(faults))
    found = Found()
    seen: set[Path] = set()
    for path in paths:
        above = path if path.is_dir() else path.parent
        files = _walk(path, found) if path.is_dir() else [path]
        for file in files:
            place = file.resolve()
            if place in seen:
                found.passed_over["files that were named twice"] += 1
                continue
            seen.add(place)
            found.documents.append(FoundDocument(above.resolve(), file.relative_to(above), file))
    return found


def escape(name: str) -> str:
    r"""Return `name` with bytes that are not UTF-8 as `\xe9`: stores and JSON take text alone."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


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
    if path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(sorted(SUFFIXES))
        return f"unsupported file type {path.suffix!r}: {path} (supported: {kinds})"
    return None


def _walk(folder: Path, found: Found) -> Iterator[Path]:
    """Yield the documents below `folder`, in the order of their names."""
    root = folder.resolve()

    def note(error: OSError) -> None:
        found.unreadable.append(str(error.filename))

    for place, folders, files in os.walk(folder, onerror=note):
        here = Path(place)
        if STORE_FILE in files:
            found.passed_over["stores of pagevec"] += 1
            folders.clear()
            continue
        hidden = {name for name in folders if name.startswith(".")}
        links = {name for name in folders if os.path.islink(here / name)} - hidden  # noqa: PTH114
        found.passed_over["hidden folders"] += len(hidden)
        found.passed_over["links to folders"] += len(links)
        folders[:] = sorted(set(folders) - hidden - links)
        for name in sorted(files):
            try:
                reason = _reason_to_pass_over(here / name, root)
            except OSError:  # of a folder that may be listed but not entered
                found.unreadable.append(str(here / name))
                continue
            if reason is None:
                yield here / name
            else:
                found.passed_over[reason] += 1


def _reason_to_pass_over(file: Path, root: Path) -> str | None:
    if file.name.startswith(LOCKS):
        return "lock files of Office programs"
    if file.name.startswith("."):
        return "hidden files"
    if file.suffix.lower() not in SUFFIXES:
        return f"files of other types ({file.suffix.lower() or 'no suffix'})"
    if file.is_symlink() and not file.resolve().is_relative_to(root):
        return "links that lead out of the folder"
    if not file.is_file():
        return "names that are not files"
    return None
