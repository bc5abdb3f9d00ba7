"""A corpus inside containers: list a mounted bucket, render documents, embed their pages.

A document travels whole and is rendered where it is embedded; it is resumed, retried and returned
in one piece.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pagevec.errors import PagevecError
from pagevec.ingest.sources import find_documents, open_document
from pagevec.ingest.worker import embed_pages
from pagevec.types import Model, Page

_PAGES_AT_ONCE = 16


@dataclass(frozen=True)
class Document:
    """A document to embed.

    Attributes:
        name: in page keys, such as `reports/2024/fares.pdf`.
        relative: path below the folder or the bucket, such as `2024/fares.pdf`.
        version: a hash that changes with the content.
        content: the file; None if containers read it from the mounted bucket.
    """

    name: str
    relative: str
    version: str
    content: bytes | None = None


@dataclass(frozen=True, eq=False)
class EmbeddedDocument:
    """The answer of a container for one document.

    Attributes:
        document: without its content.
        pages: all of them; vectors are float16 (vectors, dim), half the bytes to transfer.
        error: why the document has no pages, if it could not be read or embedded.
    """

    document: Document
    pages: tuple[Page, ...] = ()
    error: str | None = None


def list_bucket(mount: Path, address: str) -> list[Document]:
    """Return the documents of the bucket mounted at `mount`, named below `address`.

    Files are listed, not read: one counts as changed if its size or its time has changed.
    """
    return [_list_file(path, path.relative_to(mount), address) for path in find_documents([mount])]


def embed_document(model: Model, document: Document, mount: Path) -> EmbeddedDocument:
    """Render and embed the pages of a document.

    Args:
        model: embeds the pages.
        document: the file is its content, or stands below `mount`.
        mount: where the bucket is mounted.

    Returns:
        The pages, or the error of a document that cannot be read, so that it stops no other.
    """
    embedded: list[Page] = []
    listed = replace(document, content=None)
    try:
        resizing = model.info().resizing
        with _open_file(document, mount) as path, open_document(path) as pages:
            for first in range(1, pages.count + 1, _PAGES_AT_ONCE):
                numbers = range(first, min(first + _PAGES_AT_ONCE, pages.count + 1))
                sources = [pages.make(number) for number in numbers]
                embedded += embed_pages(model, document.name, sources, resizing)
    except (PagevecError, OSError) as error:
        return EmbeddedDocument(listed, error=str(error).replace(f"{mount}/", ""))
    halved = (replace(page, vectors=page.vectors.astype(np.float16)) for page in embedded)
    return EmbeddedDocument(listed, tuple(halved))


def _list_file(path: Path, relative: Path, address: str) -> Document:
    stat = path.stat()
    version = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    return Document(f"{address.rstrip('/')}/{relative}", str(relative), version)


@contextmanager
def _open_file(document: Document, mount: Path) -> Iterator[Path]:
    if document.content is None:
        yield mount / document.relative
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(document.relative).name
        path.write_bytes(document.content)
        yield path
