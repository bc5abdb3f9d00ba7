"""Files -> pages: of PDFs and Office files, frames of images, pieces of texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.office import OFFICE, as_pdf
from pagevec.ingest.page import Pages, SourcePage
from pagevec.ingest.pdf import pdf_pages
from pagevec.ingest.pictures import IMAGES, picture_pages
from pagevec.ingest.texts import TEXTS, text_pages

PDF = frozenset({".pdf"})
KINDS = PDF | IMAGES | TEXTS | OFFICE

Opener = Callable[[Path], AbstractContextManager[Pages]]


def documents(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the documents among `paths`: files as they are; folders with all that is below them.

    Files that start with a dot and files of other kinds are passed over in folders.

    Raises:
        InvalidRequest: a path does not exist, or is itself a file of a kind that is not read.
    """
    for path in paths:
        if path.is_dir():
            yield from _documents_below(path)
        elif not path.is_file():
            raise InvalidRequest(f"there is no file {path}")
        elif path.suffix.lower() not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            raise InvalidRequest(f"{path} is of no kind that is read: {kinds}")
        else:
            yield path


def open_document(document: Path) -> AbstractContextManager[Pages]:
    """Open `document`; its pages are made one at a time, as they are asked for.

    Raises:
        InvalidRequest: it cannot be opened, or what reads it is not installed.
    """
    kind = document.suffix.lower()
    if kind in OFFICE:
        return as_pdf(document)
    opener: Opener = pdf_pages if kind in PDF else text_pages if kind in TEXTS else picture_pages
    return opener(document)


def _documents_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and path.suffix.lower() in KINDS and not hidden:
            yield path


def pages_of(document: Path) -> Iterator[SourcePage]:
    """Yield the pages of `document`, made one at a time. Raises as `open_document` does."""
    with open_document(document) as pages:
        for number in range(1, pages.count + 1):
            yield pages.make(number)


def named_pages(paths: Sequence[Path]) -> Iterator[tuple[str, SourcePage]]:
    """Yield the pages of all documents among `paths`, with names such as `report.pdf#3`."""
    for document in documents(paths):
        for page in pages_of(document):
            yield f"{document.name}#{page.number}", page
