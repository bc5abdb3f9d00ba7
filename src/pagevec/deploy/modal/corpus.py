"""A corpus on its way through containers: which documents there are, and their pages, embedded.

Documents travel whole and are rendered where they are embedded; a document is what is resumed,
tried again and given back in one piece.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pagevec.errors import InvalidRequest, PagevecError
from pagevec.ingest.page import SourcePage, stored_page
from pagevec.ingest.sources import documents, open_document
from pagevec.ingest.worker import hash_of, name_of
from pagevec.types import Page

if TYPE_CHECKING:
    from pagevec.engine.api import Embedder

_PAGES_AT_ONCE = 16


@dataclass(frozen=True)
class Document:
    """A document to embed.

    Attributes:
        name: in page keys; relative: its path below the source.
        version: changes when the content does.
        content: the file, where the containers cannot read it themselves.
    """

    name: str
    relative: str
    version: str
    content: bytes | None = None


@dataclass(frozen=True, eq=False)
class EmbeddedDocument:
    """A document's pages, vectors in float16 on the way; or why there are none."""

    document: Document
    pages: tuple[Page, ...] = ()
    error: str | None = None


def documents_of_folder(folder: Path) -> Iterator[Document]:
    """Yield the documents below `folder`, without their content.

    Raises:
        InvalidRequest: there is no such folder.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder")
    for path in documents([folder]):
        yield Document(name_of(path), str(path.relative_to(folder)), hash_of(path))


def documents_of_mount(mount: Path, address: str) -> list[Document]:
    """Return the documents of a mounted bucket. Its files are listed, not read.

    So a file counts as changed when its size or its time has.
    """
    return [_listed(path, path.relative_to(mount), address) for path in documents([mount])]


def with_content(document: Document, folder: Path) -> Document:
    """Return `document` with the content of its file below `folder`."""
    return replace(document, content=(folder / document.relative).read_bytes())


def embed_document(embedder: "Embedder", document: Document, mount: Path) -> EmbeddedDocument:
    """Render and embed the pages of `document`, which is below `mount` unless it brings content.

    An unreadable document is an answer too, so that one of them stops nothing.
    """
    there = replace(document, content=None)
    try:
        with _file_of(document, mount) as path, open_document(path) as pages:
            numbers = range(1, pages.count + 1)
            parts = [numbers[i : i + _PAGES_AT_ONCE] for i in range(0, pages.count, _PAGES_AT_ONCE)]
            made = ([pages.make(number) for number in part] for part in parts)
            embedded = [page for part in made for page in _embed(embedder, document.name, part)]
    except (PagevecError, OSError) as error:
        return EmbeddedDocument(there, error=str(error).replace(str(mount), ""))
    return EmbeddedDocument(there, tuple(embedded))


def _listed(path: Path, relative: Path, address: str) -> Document:
    stat = path.stat()
    version = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    return Document(f"{address.rstrip('/')}/{relative}", str(relative), version)


@contextmanager
def _file_of(document: Document, mount: Path) -> Iterator[Path]:
    if document.content is None:
        yield mount / document.relative
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(document.relative).name
        path.write_bytes(document.content)
        yield path


def _embed(embedder: "Embedder", name: str, sources: list[SourcePage]) -> list[Page]:
    from pagevec.images import read_image

    contents = [source.content for source in sources]
    if all(isinstance(content, str) for content in contents):
        embedded = embedder.embed([content for content in contents if isinstance(content, str)])
    else:
        images = [read_image(content) for content in contents if isinstance(content, bytes)]
        embedded = embedder.embed(images)
    resizing = embedder.info.resizing
    return [
        stored_page(name, source, vectors.astype(np.float16), resizing)  # half the way's bytes
        for source, vectors in zip(sources, embedded.result().vectors, strict=True)
    ]
