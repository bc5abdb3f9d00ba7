"""Find documents and open them: PDF and Office files, images, texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.office import OFFICE, open_office
from pagevec.ingest.page import Pages, SourcePage
from pagevec.ingest.pdf import open_pdf
from pagevec.ingest.pictures import IMAGES, open_picture
from pagevec.ingest.texts import TEXTS, open_text

PDF = frozenset({".pdf"})
KINDS = PDF | IMAGES | TEXTS | OFFICE

Opener = Callable[[Path], AbstractContextManager[Pages]]


def find_documents(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the documents among `paths`: files, and all documents below folders.

    In folders, hidden files and files of unsupported types are skipped.

    Raises:
        InvalidRequest: a path does not exist, or is itself a file of an unsupported type.
    """
    for path in paths:
        if path.is_dir():
            yield from _documents_below(path)
        elif not path.is_file():
            raise InvalidRequest(f"no such file or folder: {path}")
        elif path.suffix.lower() not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            raise InvalidRequest(
                f"unsupported file type {path.suffix!r}: {path} (supported: {kinds})"
            )
        else:
            yield path


def open_document(document: Path) -> AbstractContextManager[Pages]:
    """Open `document`; its pages are made one at a time, when they are asked for.

    Raises:
        InvalidRequest: the document cannot be opened, or what reads it is not installed.
    """
    kind = document.suffix.lower()
    if kind in OFFICE:
        return open_office(document)
    opener: Opener = open_pdf if kind in PDF else open_text if kind in TEXTS else open_picture
    return opener(document)


def _documents_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and path.suffix.lower() in KINDS and not hidden:
            yield path


def read_pages(document: Path) -> Iterator[SourcePage]:
    """Yield the pages of `document`, made one at a time. Raises as `open_document` does."""
    with open_document(document) as pages:
        for number in range(1, pages.count + 1):
            yield pages.make(number)
