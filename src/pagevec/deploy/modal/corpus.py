"""A corpus inside containers: list a mounted bucket, render documents, embed their pages.

A document travels whole and is rendered where it is embedded; it is resumed, retried and returned
in one piece.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from pagevec.errors import PagevecError
from pagevec.ingest.boundary import open_document
from pagevec.ingest.page import ReadOptions
from pagevec.ingest.pipeline import PageFault, describe_faults, embed_in_batches
from pagevec.ingest.sources import find_documents
from pagevec.types import Model, Page

log = logging.getLogger(__name__)


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
        pages: those that could be embedded; vectors are float16 (vectors, dim), half the bytes to
            transfer.
        count: how many pages the document has; None where that is not known.
        error: why the document has no pages, or which of them are missing.
    """

    document: Document
    pages: tuple[Page, ...] = ()
    count: int | None = None
    error: str | None = None


def list_bucket(mount: Path, address: str) -> list[Document]:
    """Return the documents of the bucket mounted at `mount`, named below `address`.

    Files are listed, not read: one counts as changed if its size or its time has changed. Links
    that lead out of the bucket, hence into the container, are not followed; the log names them.
    """
    found = find_documents([mount])
    for line in found.describe_links():
        log.warning("%s", line)
    return [
        _list_file(one.path, one.below, address)
        for one in found.documents
        if isinstance(one.path, Path)
    ]


def embed_document(model: Model, document: Document, mount: Path) -> EmbeddedDocument:
    """Render and embed the pages of a document.

    Args:
        model: embeds the pages.
        document: the file is its content, or stands below `mount`.
        mount: where the bucket is mounted.

    Returns:
        The pages, and an error for those that could not be read or embedded: a page that fails
        costs that page, a document that cannot be read stops no other.
    """
    embedded: list[Page] = []
    faults: list[PageFault] = []
    listed = replace(document, content=None)
    try:
        resizing = model.info().resizing
        with (
            _open_file(document, mount) as path,
            open_document(path, ReadOptions(resizing)) as pages,
        ):
            numbers = range(1, pages.count + 1)
            for batch in embed_in_batches(model, document.name, pages, numbers, resizing):
                embedded += batch.pages
                faults += batch.faults
            sentence = describe_faults(pages.count, faults)
    except (PagevecError, OSError) as error:
        return EmbeddedDocument(listed, error=str(error).replace(f"{mount}/", ""))
    return EmbeddedDocument(
        listed,
        tuple(replace(page, vectors=page.vectors.astype(np.float16)) for page in embedded),
        pages.count,
        sentence and sentence.replace(f"{mount}/", ""),
    )


def _list_file(path: Path, relative: PurePath, address: str) -> Document:
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
