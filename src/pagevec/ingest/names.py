"""How documents are named: LABEL/path below a folder, wherever that folder stands.

A store's ledger knows the folder of each label. Stores made by pagevec 0.1 name documents by their
absolute paths; such documents get their new names when their folder is ingested again.
"""

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from pagevec.errors import InvalidRequest
from pagevec.ingest.addresses import Address, is_address
from pagevec.ingest.objects import RemoteObject
from pagevec.ingest.sources import Found, FoundDocument, Place, escape
from pagevec.stores.base import Store


@dataclass(frozen=True)
class SourceDocument:
    """A document on disk or in an object store, and its name in page keys.

    Attributes:
        name: LABEL/path below the label's folder, with forward slashes.
        path: where the file is, or the object.
        is_upload: whether it was sent to a service, to whose callers `path` means nothing.
    """

    name: str
    path: Path | RemoteObject
    is_upload: bool = False

    @property
    def shown(self) -> str:
        """What errors call the file. That of an upload is named by the document they belong to."""
        if isinstance(self.path, RemoteObject):
            return str(self.path.address)
        return "the file" if self.is_upload else escape(str(self.path))

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """Give the document's file; of an object a copy, which is removed at the end of the block.

        Raises:
            ObjectError: the object cannot be fetched.
        """
        if isinstance(self.path, Path):
            yield self.path
            return
        with self.path.fetched() as file:
            yield file


_UPLOADS, _UPLOADS_LABEL = "uploads:", "uploads"
# A ledger has `uploads:FOLDER` for the label of documents that were sent to a service.


class Names:
    """Names of documents and places of their files, by the folders that a ledger knows.

    Args:
        folders: the absolute folder of each label.
        known: the content hashes of documents that are in the ledger, by name.
    """

    def __init__(self, folders: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
        self._addresses = {
            label: Address(folder) for label, folder in folders.items() if is_address(folder)
        }
        self._folders = {
            label: Path(_unescape(folder))
            for label, folder in folders.items()
            if label not in self._addresses and not folder.startswith(_UPLOADS)
        }
        self._uploads = {
            label: Path(_unescape(folder.removeprefix(_UPLOADS)))
            for label, folder in folders.items()
            if folder.startswith(_UPLOADS)
        }
        self._known = known or {}

    @classmethod
    def read(cls, store: Store) -> "Names":
        """Return the names that the ledger of `store` knows now."""
        known = {record.name: record.content_hash for record in store.ledger.records()}
        return cls(store.ledger.labels(), known)

    def is_upload(self, name: str) -> bool:
        """Whether the document `name` was sent to a service, which keeps its file."""
        return name.partition("/")[0] in self._uploads

    def known_name(self, path: Place) -> str | None:
        """Return the name of the document in the ledger whose file is `path`, if there is one."""
        if isinstance(path, Address):
            names = (
                name_below(label, PurePosixPath(below))
                for label, root in sorted(
                    self._addresses.items(), key=lambda item: -len(item[1].text)
                )
                if (below := path.below(root)) is not None
            )
            return next((name for name in names if name in self._known), None)
        for file in (path.absolute(), path.resolve()):
            for name in (str(file), *self._names_above(file)):
                if name in self._known:
                    return name
        return None

    def choose_label(self, folder: Place, wanted: str | None) -> str:
        """Return the label for documents of exactly this folder: as wanted, known, or its name."""
        places = [*self._folders.items(), *self._addresses.items()]
        known = (label for label, place in places if place == folder)
        return escape(wanted or next(known, folder.name))

    def address(self, name: str) -> Address | None:
        """Return where the object of the document `name` is, or was; None if it has a file."""
        label, _, below = name.partition("/")
        return self._addresses[label] / below if label in self._addresses else None

    def path(self, name: str) -> Path | None:
        """Return where the file of the document `name` is, or was; None if it is an object."""
        label, _, below = name.partition("/")
        if label in self._addresses:
            return None
        if label in self._uploads:
            return self._uploads[label] / upload_file(name, self._known.get(name, ""))
        file = self._folders[label] / below if label in self._folders else Path(name)
        escaped = Path(_unescape(str(file)))
        return escaped if escaped != file and escaped.exists() else file

    def _names_above(self, file: Path) -> Iterator[str]:
        """Yield the names of `file` below each label that holds it, the deepest folder first."""
        holding = [item for item in self._folders.items() if file.is_relative_to(item[1])]
        for label, folder in sorted(holding, key=lambda item: -len(item[1].parts)):
            yield name_below(label, file.relative_to(folder))


def name_documents(found: Found, store: Store, label: str | None = None) -> list[SourceDocument]:
    """Name documents that were found; the ledger remembers their folders.

    Args:
        found: documents below folders, or named themselves.
        store: whose ledger knows labels, and documents that keep their names.
        label: label of new documents; default: the name of their folder.

    Raises:
        InvalidRequest: a folder needs a label of its own because the store knows that label from
            another folder, or `label` is not one.
    """
    adopted: dict[str, Place] = {}
    for folder, documents in _by_folder(found).items():
        own = _adopt(store, folder, label, documents, adopted)
        adopted[own] = folder
    names = Names.read(store)
    return [
        SourceDocument(
            names.known_name(one.folder / one.below)
            or name_below(names.choose_label(one.folder, label), one.below),
            one.path,
        )
        for one in found.documents
    ]


def label_of_uploads(store: Store, folder: Path) -> str:
    """Return the first part of the names of documents whose files are kept in `folder`.

    The ledger remembers it; a label that stands for documents of a folder is not taken.
    """
    labels, place = store.ledger.labels(), f"{_UPLOADS}{escape(str(folder))}"
    # A store that was moved has its uploads elsewhere now.
    own = next((label for label, known in labels.items() if known.startswith(_UPLOADS)), None)
    numbered = (f"{_UPLOADS_LABEL}-{number}" for number in itertools.count(2))
    taken = {*labels, *(name.partition("/")[0] for name in store.documents())}
    label = own or next(
        one for one in itertools.chain([_UPLOADS_LABEL], numbered) if one not in taken
    )
    if labels.get(label) != place:
        store.ledger.set_label(label, place)
    return label


def upload_file(name: str, content_hash: str) -> str:
    """Return what the file of an uploaded document is called in the folder of uploads."""
    return f"{content_hash}{PurePosixPath(name).suffix.lower()}"


def name_unstored(found: Found) -> list[SourceDocument]:
    """Name documents that were found where there is no store.

    Folders of one name get as many of the folders above them as tell them apart.
    """
    labels = _distinct_labels({one.folder for one in found.documents})
    return [
        SourceDocument(name_below(labels[one.folder], one.below), one.path)
        for one in found.documents
    ]


def check_label(label: str, folder: Place, taken: Mapping[str, Place]) -> None:
    """Check that `label` can stand for `folder`, beside the labels that are `taken`.

    Raises:
        InvalidRequest: it cannot.
    """
    if not label or "/" in label or label in (".", ".."):
        raise InvalidRequest(
            f"{folder}: {label!r} cannot be a label; give it a label of its own (--as LABEL)"
        )
    if label in taken:
        raise InvalidRequest(
            f"{folder}: the label {label!r} stands for {taken[label]} already; add the folders one "
            "after the other, each with a label of its own (--as LABEL)"
        )


def name_below(label: str, below: PurePath) -> str:
    """Return the name of the document at the path `below` the folder that `label` stands for."""
    return f"{label}/{escape(below.as_posix())}"


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _by_folder(found: Found) -> dict[Place, list[FoundDocument]]:
    folders: dict[Place, list[FoundDocument]] = {}
    for one in found.documents:
        folders.setdefault(one.folder, []).append(one)
    return folders


def _unescape(name: str) -> str:
    """Return the file name that `escape` was given."""
    content = os.fsencode(name)
    return os.fsdecode(
        re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), content)
    )


def _distinct_labels(folders: set[Place]) -> dict[Place, str]:
    parts = {folder: PurePath(str(folder)).parts for folder in folders}
    depth = 1
    while True:
        labels = {folder: "/".join(parts[folder][-depth:]).lstrip("/") for folder in folders}
        if len(set(labels.values())) == len(folders):
            return labels
        depth += 1


def _adopt(
    store: Store,
    folder: Place,
    label: str | None,
    documents: Sequence[FoundDocument],
    adopted: Mapping[str, Place],
) -> str:
    """Let the ledger know `folder` under its label, and give its documents names of this form.

    Returns:
        The label.

    Raises:
        InvalidRequest: the label belongs to another folder, or there is none.
    """
    labels, place = store.ledger.labels(), escape(str(folder))
    own = Names(labels).choose_label(folder, label)
    check_label(own, folder, adopted)
    if labels.get(own, "").startswith(_UPLOADS):
        raise InvalidRequest(
            f"{folder}: the label {own!r} is that of uploaded documents; give this folder another "
            "label (--as LABEL)"
        )
    if labels.get(own, place) != place and not _has_moved(store, own, folder, documents):
        raise InvalidRequest(
            f"{folder}: the store knows the label {own!r} from {labels[own]}, with other "
            "documents; give this folder another label (--as LABEL)"
        )
    if own not in labels or labels[own] != place:
        store.ledger.set_label(own, place)
    if isinstance(folder, Path):
        _rename_absolute(store, own, folder, documents)
    return own


def _has_moved(store: Store, label: str, folder: Place, documents: Sequence[FoundDocument]) -> bool:
    """Whether most documents of `label` are in `folder`, with the same content or version."""
    records = [one for one in store.ledger.records() if one.name.startswith(f"{label}/")]
    if isinstance(folder, Path):
        files = [(folder / record.name.removeprefix(f"{label}/"), record) for record in records]
        same = sum(_has_content(file, record.content_hash) for file, record in files)
    else:
        there = {
            (name_below(label, one.below), one.path.version)
            for one in documents
            if isinstance(one.path, RemoteObject)
        }
        same = sum(one.version is not None and (one.name, one.version) in there for one in records)
    return 2 * same > len(records) or not records


def _has_content(file: Path, content_hash: str) -> bool:
    try:
        return file.is_file() and hash_file(file) == content_hash
    except OSError:
        return False


def _rename_absolute(
    store: Store, label: str, folder: Path, documents: Sequence[FoundDocument]
) -> None:
    """Rename documents of this folder that pagevec 0.1 named by their absolute paths."""
    records = store.ledger.records()
    absolute = {
        record.name: record.content_hash for record in records if Path(record.name).is_absolute()
    }
    taken = {record.name for record in records}
    renamed: dict[str, str] = {}
    for root in [folder, *_former_places(absolute, documents)]:
        for name in absolute:
            path = Path(name)
            if path.is_relative_to(root) and name not in renamed:
                renamed[name] = name_below(label, path.relative_to(root))
    for name in [name for name, new in renamed.items() if new in taken]:
        store.delete(name)  # ingested again meanwhile, under its new name
        del renamed[name]
    if renamed:
        store.rename(renamed)


def _former_places(
    absolute: Mapping[str, str], documents: Sequence[FoundDocument]
) -> Iterator[Path]:
    """Yield folders whose documents, most of them unchanged, are these files now."""
    agreeing: Counter[Path] = Counter()
    for one in documents:
        below = one.below
        for name, content_hash in absolute.items():
            path = Path(name)
            ends_alike = path.parts[-len(below.parts) :] == below.parts
            if ends_alike and isinstance(one.path, Path) and _has_content(one.path, content_hash):
                agreeing[path.parents[len(below.parts) - 1]] += 1
    for root, count in agreeing.items():
        if 2 * count > sum(Path(name).is_relative_to(root) for name in absolute):
            yield root
