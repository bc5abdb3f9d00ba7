"""The documents of a store: listed, removed, kept in step with folders. No model is needed."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import starmap
from pathlib import Path

from pagevec.errors import InvalidRequest, PagevecError
from pagevec.ingest.addresses import Address, is_address
from pagevec.ingest.names import Names
from pagevec.ingest.objects import find_gone
from pagevec.ingest.sources import Place
from pagevec.stores.base import Store
from pagevec.types import DocumentRecord


@dataclass(frozen=True)
class Removal:
    """What became of documents whose files are gone.

    Attributes:
        removed: names of documents that were removed from the store.
        doubtful: why others were not, such as a folder that may not be mounted.
    """

    removed: tuple[str, ...]
    doubtful: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredDocument:
    """A document in a store.

    Attributes:
        name: its name.
        stored: pages of it that are in the store.
        pages: pages that it has; None where that is not known.
        complete: whether all of them are stored.
        error: why it failed, or which pages are missing.
        path: where its file is, or was; None for objects, and for documents of other programs.
        address: where its object is, or was; None for files, and for documents of other programs.
        is_ours: whether pagevec has ingested it; otherwise morphik-core wrote it, and only
            morphik-core may remove it.
    """

    name: str
    stored: int
    pages: int | None
    complete: bool
    error: str | None = None
    path: Path | None = None
    is_ours: bool = True
    address: str | None = None


class Catalogue:
    """The documents of a store.

    Args:
        store: holds them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had. Its file stays where it is.

        Args:
            document: its name, or the path of its file.

        Raises:
            InvalidRequest: the store has no such document, or another program wrote it.
        """
        return self._store.delete(self.find_ours(document))

    def prune(self, paths: Sequence[Place], among: Collection[str] | None = None) -> Removal:
        """Remove the documents that came from `paths` and whose files are gone.

        Nothing is removed on doubtful evidence: not below a folder that is gone or empty, which
        may be a disk that is not mounted, nor below an address that cannot be listed completely.
        Other programs' documents are never removed.

        Args:
            paths: folders, files and addresses, as they were added.
            among: names of documents; None for all of them.
        """
        names = Names.read(self._store)
        removals = [
            self._prune_files([one for one in paths if isinstance(one, Path)], names, among),
            *(self._prune_objects(one, names, among) for one in paths if isinstance(one, Address)),
        ]
        removed = dict.fromkeys(name for one in removals for name in one.removed)
        return Removal(tuple(removed), tuple(said for one in removals for said in one.doubtful))

    def _prune_objects(self, root: Address, names: Names, among: Collection[str] | None) -> Removal:
        below = {
            address: record
            for record in self._store.ledger.records()
            if (address := names.address(record.name)) is not None
            and (address == root or address.below(root) is not None)
            and (among is None or record.name in among)
        }
        if not below:
            return Removal(())
        try:
            gone = find_gone(root, below)
        except PagevecError as error:
            return Removal((), (f"nothing that came from {root} is removed: {error}",))
        removed = [
            record.name
            for address, record in below.items()
            if address in gone and not is_of_another_program(self._store, record.name, record)
        ]
        for name in removed:
            self._store.delete(name)
        return Removal(tuple(removed))

    def _prune_files(
        self, paths: Sequence[Path], names: Names, among: Collection[str] | None
    ) -> Removal:
        # A file that is a link is known by its own place, a folder by where the link leads.
        places = [path.absolute() for path in paths]
        roots = {
            *(place.resolve() for place in places),
            *(place.parent.resolve() / place.name for place in places),
        }
        removed, doubtful = [], Counter[Path]()
        records = self._store.ledger.records()
        for record in (one for one in records if not names.is_upload(one.name)):
            file = names.path(record.name)
            if file is None:
                continue
            below = [root for root in roots if file.is_relative_to(root)]
            if not below or (among is not None and record.name not in among) or not is_gone(file):
                continue
            empty = [one for one in below if not _has_files(_evidence(file, one))]
            doubtful.update(empty[:1])
            if not empty and not is_of_another_program(self._store, record.name, record):
                self._store.delete(record.name)
                removed.append(record.name)
        return Removal(tuple(removed), tuple(starmap(_describe_doubt, doubtful.items())))

    def list(self) -> list[StoredDocument]:
        """Return all documents in the store, by name; those of other programs, too."""
        names, counts = Names.read(self._store), self._store.documents()
        ours = [
            _stored(one, counts.pop(one.name, 0), names) for one in self._store.ledger.records()
        ]
        others = [StoredDocument(one, n, n, True, is_ours=False) for one, n in counts.items()]
        return sorted([*ours, *others], key=lambda one: one.name)

    def describe(self, name: str) -> StoredDocument | None:
        """Return the document `name`, or None if the store has none."""
        record, stored = self._store.ledger.record(name), len(self._store.has(name))
        if record is not None:
            return _stored(record, stored, Names.read(self._store))
        return StoredDocument(name, stored, stored, True, is_ours=False) if stored else None

    def find(self, document: str | os.PathLike[str]) -> str:
        """Return the name of the document that is called so, or whose file stands there.

        Raises:
            InvalidRequest: the store has no such document.
        """
        name = self._known_name(os.fspath(document))
        if name is None:
            raise self._unknown(document)
        return name

    def find_ours(self, document: str | os.PathLike[str]) -> str:
        """Return the name of a document that pagevec has ingested.

        Raises:
            InvalidRequest: the store has no such document, or another program wrote it.
        """
        name = self.find(document)
        if is_of_another_program(self._store, name, self._store.ledger.record(name)):
            raise InvalidRequest(
                f"{name!r} was not ingested by pagevec; remove it with the program that wrote it"
            )
        return name

    def find_all(self, document: str | os.PathLike[str]) -> Sequence[str]:
        """Return the names of the documents that `document` stands for: itself, or all below it.

        Args:
            document: name or path of a document, or of a folder of documents.

        Raises:
            InvalidRequest: the store has no such document.
        """
        given = os.fspath(document)
        if (name := self._known_name(given)) is not None:
            return [name]
        is_below = _below(given, Names.read(self._store))
        below = [
            name
            for name in self._store.documents()
            if name.startswith(f"{given.rstrip('/')}/") or is_below(name)
        ]
        if not given or not below:
            raise self._unknown(document)
        return below

    def _known_name(self, given: str) -> str | None:
        # morphik-core's documents are not in the ledger.
        if self._store.ledger.record(given) is not None or self._store.has(given):
            return given
        place = Address.parse(given) if is_address(given) else Path(given)
        return Names.read(self._store).known_name(place)

    def _unknown(self, document: str | os.PathLike[str]) -> InvalidRequest:
        return unknown_document(os.fspath(document), self.list(), "give its name or its path")


def unknown_document(
    given: str, documents: Iterable[StoredDocument], what_to_do: str
) -> InvalidRequest:
    """Return the error for a document that is none of `documents`, with the name that is meant.

    Args:
        given: what it was called.
        documents: all that there are.
        what_to_do: where no name is like it.
    """
    close = get_close_matches(given, [one.name for one in documents], n=1)
    hint = f"did you mean {close[0]!r}?" if close else what_to_do
    return InvalidRequest(f"the store has no document {given!r}; {hint}")


def _stored(record: DocumentRecord, stored: int, names: Names) -> StoredDocument:
    address = names.address(record.name)
    return StoredDocument(
        record.name,
        stored,
        record.pages,
        record.complete,
        record.error,
        names.path(record.name),
        address=None if address is None else str(address),
    )


def _below(given: str, names: Names) -> Callable[[str], bool]:
    """Return what tells of a name whether its file or object is below `given`."""
    if is_address(given):
        root = Address.parse(given)
        return lambda name: bool((address := names.address(name)) and address.below(root))
    folder = Path(given).resolve()
    return lambda name: bool((file := names.path(name)) and file.is_relative_to(folder))


def is_of_another_program(store: Store, name: str, record: DocumentRecord | None) -> bool:
    """Whether the store has pages of this name that pagevec did not write.

    Args:
        store: that may have them.
        name: of a document.
        record: what the ledger has of this name.
    """
    return (record is None or record.pages is None) and bool(store.has(name))


def note_failure(store: Store, name: str, error: str) -> None:
    """Note in the ledger why a document failed; the pages that it has in the store stay.

    Args:
        store: with the ledger. Documents of other programs are not noted.
        name: of the document.
        error: a sentence.
    """
    known = store.ledger.record(name)
    if not is_of_another_program(store, name, known):
        known = known or DocumentRecord(name, content_hash="")
        store.ledger.write(replace(known, error=error))


def is_gone(file: Path) -> bool:
    """Whether there is certainly no file, rather than one that cannot be reached."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _evidence(file: Path, root: Path) -> Path:
    """Return the folder whose files show that the disk is mounted on which `file` was.

    It is the folder of a file that was named itself, and the last link on the way from `root` to
    the file, which may lead to another disk than that of `root`.
    """
    if root == file:
        return file.parent
    way = (one for one in file.parents if one.is_relative_to(root))
    return next((one for one in way if one.is_symlink()), root)


def _has_files(folder: Path) -> bool:
    """Whether a folder has files, which shows that its disk is mounted; hidden ones do not."""
    try:
        return any(not one.name.startswith(".") for one in folder.iterdir())
    except OSError:
        return False


def _describe_doubt(folder: Path, kept: int) -> str:
    return (
        f"{folder} is gone or empty, as if its disk were not mounted: {kept} "
        f"{'document whose file is' if kept == 1 else 'documents whose files are'} missing "
        "there stay in the store (`pagevec remove` removes them)"
    )
