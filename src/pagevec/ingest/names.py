"""How documents are named: LABEL/path below a folder, wherever that folder stands.

A store's ledger knows the folder of each label. Stores made by pagevec 0.1 name documents by their
absolute paths; such documents get their new names when their folder is ingested again.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.sources import find_documents
from pagevec.stores.base import Store


@dataclass(frozen=True)
class SourceDocument:
    """A document on disk, and its name in page keys.

    Attributes:
        name: LABEL/path below the label's folder, with forward slashes.
        path: where the file is.
    """

    name: str
    path: Path


class Names:
    """Names of documents and places of their files, by the folders that a ledger knows.

    Args:
        folders: the absolute folder of each label.
        known: names of documents that are in the ledger.
    """

    def __init__(self, folders: Mapping[str, str], known: Iterable[str] = ()) -> None:
        self._folders = {label: Path(folder) for label, folder in folders.items()}
        self._known = frozenset(known)

    @classmethod
    def read(cls, store: Store) -> "Names":
        """Return the names that the ledger of `store` knows now."""
        return cls(store.ledger.labels(), (record.name for record in store.ledger.records()))

    def known_name(self, path: Path) -> str | None:
        """Return the name of the document in the ledger whose file is `path`, if there is one."""
        for file in (path.absolute(), path.resolve()):
            for name in (str(file), *self._names_above(file)):
                if name in self._known:
                    return name
        return None

    def label_of(self, folder: Path) -> str | None:
        """Return the label of exactly this folder."""
        return next((label for label, known in self._folders.items() if known == folder), None)

    def path(self, name: str) -> Path:
        """Return where the file of the document `name` is, or was."""
        label, _, below = name.partition("/")
        return self._folders[label] / below if label in self._folders else Path(name)

    def _names_above(self, file: Path) -> Iterator[str]:
        """Yield the names of `file` below each label that holds it, the deepest folder first."""
        holding = [item for item in self._folders.items() if file.is_relative_to(item[1])]
        for label, folder in sorted(holding, key=lambda item: -len(item[1].parts)):
            yield _name(label, file.relative_to(folder))


def name_documents(
    paths: Sequence[Path], store: Store, label: str | None = None
) -> list[SourceDocument]:
    """Find the documents among `paths` and name them; the ledger remembers their folders.

    Args:
        paths: files and folders. The folder of a file is the one that it is in.
        store: whose ledger knows labels, and documents that keep their names.
        label: label of new documents; default: the name of their folder.

    Raises:
        InvalidRequest: a path does not exist or cannot be read, a folder needs a label of its
            own because the store knows that label from another folder, or `label` is not one.
    """
    found = [_find_below(path) for path in paths]
    for folder, files in found:
        _adopt(store, folder, label, files)
    names = Names.read(store)
    return [
        SourceDocument(names.known_name(folder / below) or _name(own, below), file)
        for folder, files in found
        for own in [label or names.label_of(folder) or folder.name]
        for below, file in files.items()
    ]


def name_unstored(paths: Sequence[Path]) -> list[SourceDocument]:
    """Find the documents among `paths` and name them where there is no store.

    Folders of one name get as many of the folders above them as tell them apart.

    Raises:
        InvalidRequest: a path does not exist or cannot be read.
    """
    found = [_find_below(path) for path in paths]
    labels = _distinct_labels({folder for folder, _ in found})
    return [
        SourceDocument(_name(labels[folder], below), file)
        for folder, files in found
        for below, file in files.items()
    ]


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _find_below(path: Path) -> tuple[Path, dict[Path, Path]]:
    """Return the folder that `path` is or is in, and its documents by their paths below it."""
    above = path if path.is_dir() else path.parent
    return above.resolve(), {file.relative_to(above): file for file in find_documents([path])}


def _name(label: str, below: Path) -> str:
    return f"{label}/{below.as_posix()}"


def _distinct_labels(folders: set[Path]) -> dict[Path, str]:
    depth = 1
    while True:
        labels = {folder: "/".join(folder.parts[-depth:]).lstrip("/") for folder in folders}
        if len(set(labels.values())) == len(folders):
            return labels
        depth += 1


def _adopt(store: Store, folder: Path, label: str | None, files: Mapping[Path, Path]) -> None:
    """Let the ledger know `folder` under its label, and give its documents names of this form.

    Raises:
        InvalidRequest: the label belongs to another folder, or there is none.
    """
    labels = store.ledger.labels()
    own = label or Names(labels).label_of(folder) or folder.name
    if not own or "/" in own or own in (".", ".."):
        raise InvalidRequest(
            f"{folder}: {own!r} cannot be a label; give it a label of its own (--as LABEL)"
        )
    known = labels.get(own)
    if known is not None and Path(known) != folder and not _has_moved(store, own, folder):
        raise InvalidRequest(
            f"{folder}: the store knows the label {own!r} from {known}, with other documents; "
            "give this folder another label (--as LABEL)"
        )
    if known != str(folder):
        store.ledger.set_label(own, str(folder))
    _rename_absolute(store, own, folder, files)


def _has_moved(store: Store, label: str, folder: Path) -> bool:
    """Whether most documents of `label` are in `folder`, with the same content."""
    records = [one for one in store.ledger.records() if one.name.startswith(f"{label}/")]
    files = [(folder / record.name.removeprefix(f"{label}/"), record) for record in records]
    same = sum(_has_content(file, record.content_hash) for file, record in files)
    return 2 * same > len(records) or not records


def _has_content(file: Path, content_hash: str) -> bool:
    try:
        return file.is_file() and hash_file(file) == content_hash
    except OSError:
        return False


def _rename_absolute(store: Store, label: str, folder: Path, files: Mapping[Path, Path]) -> None:
    """Rename documents of this folder that pagevec 0.1 named by their absolute paths."""
    records = store.ledger.records()
    absolute = {
        record.name: record.content_hash for record in records if Path(record.name).is_absolute()
    }
    taken = {record.name for record in records}
    renamed: dict[str, str] = {}
    for root in [folder, *_former_places(absolute, files)]:
        for name in absolute:
            path = Path(name)
            if path.is_relative_to(root) and name not in renamed:
                renamed[name] = _name(label, path.relative_to(root))
    for name in [name for name, new in renamed.items() if new in taken]:
        store.delete(name)  # ingested again meanwhile, under its new name
        del renamed[name]
    if renamed:
        store.rename(renamed)


def _former_places(absolute: Mapping[str, str], files: Mapping[Path, Path]) -> Iterator[Path]:
    """Yield folders whose documents, most of them unchanged, are these files now."""
    agreeing: Counter[Path] = Counter()
    for below, file in files.items():
        for name, content_hash in absolute.items():
            path = Path(name)
            ends_alike = path.parts[-len(below.parts) :] == below.parts
            if ends_alike and _has_content(file, content_hash):
                agreeing[path.parents[len(below.parts) - 1]] += 1
    for root, count in agreeing.items():
        if 2 * count > sum(Path(name).is_relative_to(root) for name in absolute):
            yield root
