"""`modal run ...::embed` on the machine that starts it: a corpus over many containers.

Results go to a folder of .npz files or into a store; documents that are there are not sent again.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import modal
import numpy as np
from tqdm import tqdm

from pagevec.deploy.modal.corpus import Document, EmbeddedDocument
from pagevec.errors import InvalidRequest
from pagevec.ingest.catalogue import note_failure
from pagevec.ingest.names import SourceDocument, hash_file, name_documents, name_unstored
from pagevec.ingest.sources import Found, find_documents
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.stores.fingerprint import agree_on_model
from pagevec.terminal import count, echo
from pagevec.types import DocumentRecord, MultiVector, Page
from pagevec.wire.npz import Npz


class Shards:
    """One .npz file for each document, as `pagevec embed` writes it, with the document's version.

    Args:
        folder: gets the files, at the documents' paths below their source.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name_documents(self, folder: Path, label: str | None) -> list[SourceDocument]:
        """Find the documents below `folder` and name them."""
        return name_unstored(_find_documents(folder))

    def has(self, document: Document) -> bool:
        """Return whether this version of `document` is there."""
        shard = self._shard(document)
        if not shard.is_file():
            return False
        with Npz(shard) as arrays:
            return str(arrays["version"]) == document.version

    def check_model(self, ask: Callable[[], MultiVector]) -> None:
        """Do nothing: files of different models are not searched together."""

    def put(self, embedded: EmbeddedDocument) -> None:
        """Write the file of a document, complete or not at all; nothing if it has no page.

        A document of which pages are missing gets no version, so that it is sent again.
        """
        if embedded.error is not None and not embedded.pages:
            return
        version = embedded.document.version if embedded.error is None else ""
        shard = self._shard(embedded.document)
        shard.parent.mkdir(parents=True, exist_ok=True)
        file, pages = Path(embedded.document.relative).name, _widen(embedded.pages)
        arrays: dict[str, Any] = {f"emb_{index}": page.vectors for index, page in enumerate(pages)}
        names = np.array([f"{file}#{page.key.number}" for page in pages])
        draft = shard.with_name(shard.name + ".part")
        with draft.open("wb") as out:
            np.savez(out, names=names, version=np.array(version), **arrays)
        draft.replace(shard)  # a process that is killed leaves a complete file or none

    def _shard(self, document: Document) -> Path:
        return self._folder / f"{document.relative}.npz"


class Stored:
    """Pages in a store and documents in its ledger, as `pagevec ingest` leaves them.

    Args:
        store: takes the pages.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def name_documents(self, folder: Path, label: str | None) -> list[SourceDocument]:
        """Find the documents below `folder` and name them; the ledger remembers the label.

        Raises:
            InvalidRequest: the store knows the label from another folder.
        """
        return name_documents(_find_documents(folder), self._store, label)

    def has(self, document: Document) -> bool:
        """Return whether all pages of this version of `document` are there."""
        known = self._store.ledger.record(document.name)
        return known is not None and known.complete and known.content_hash == document.version

    def check_model(self, ask: Callable[[], MultiVector]) -> None:
        """Refuse another model than the one of the pages in the store.

        Args:
            ask: returns the model's fingerprint, float32 (vectors, dim).

        Raises:
            StoreError: the pages were embedded by another model.
        """
        agree_on_model(self._store, ask())

    def put(self, embedded: EmbeddedDocument) -> None:
        """Replace the pages of a document, and note in the ledger which are missing, and why."""
        document, ledger = embedded.document, self._store.ledger
        if embedded.error is not None and not embedded.pages:  # the last good version stays
            note_failure(self._store, document.name, embedded.error)
            return
        record = DocumentRecord(
            document.name, document.version, embedded.count, error=embedded.error
        )
        self._store.delete(document.name)  # no page of a former version may stay
        ledger.write(record)
        self._store.add(_widen(embedded.pages))
        ledger.write(replace(record, complete=embedded.error is None))


Results: TypeAlias = Shards | Stored
"""Where embedded documents go."""


@contextmanager
def open_results(folder: Path, store: str) -> Iterator[Results]:
    """Yield where results go: `store` if one is named, else `folder`.

    Raises:
        StoreError: the store cannot be opened.
    """
    if store:
        with open_store(store) as opened:
            yield Stored(opened)
    else:
        yield Shards(folder)


def mount_bucket(address: str, secret: str, endpoint: str) -> modal.CloudBucketMount:
    """Return a read-only mount of a bucket.

    Args:
        address: of the bucket, such as `s3://bucket/reports`.
        secret: name of the Modal secret with its credentials; empty for a public bucket.
        endpoint: address of its service; empty for AWS.

    Raises:
        InvalidRequest: the address names no bucket.
    """
    parts = urlsplit(address)
    if not parts.netloc:
        raise InvalidRequest(f"--source {address}: expected s3://bucket or s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return modal.CloudBucketMount(
        parts.netloc,
        bucket_endpoint_url=endpoint or None,
        key_prefix=f"{prefix}/" if prefix else None,
        secret=modal.Secret.from_name(secret) if secret else None,
        read_only=True,
    )


def list_folder(folder: Path, results: Results, label: str | None = None) -> list[Document]:
    """Return the documents below `folder`, without their content. Raises as `embed_folder`."""
    if not folder.is_dir():
        raise InvalidRequest(f"--source {folder}: not a folder")
    return [
        Document(one.name, one.path.relative_to(folder).as_posix(), hash_file(one.path))
        for one in results.name_documents(folder, label)
        if isinstance(one.path, Path)
    ]


def embed_folder(containers: Any, folder: Path, results: Results, label: str | None = None) -> None:
    """Send the documents below a folder to containers, except those in `results` already.

    Exits with code 1 if a document failed.

    Args:
        containers: the deployed class, with the methods of `Container`.
        folder: on this machine.
        results: where pages go.
        label: of the folder in document names; None means the folder's own name.

    Raises:
        InvalidRequest: there is no such folder, or the store knows its label from another one.
        StoreError: the store has pages of another model.
    """
    documents = list_folder(folder, results, label)
    _embed(containers, documents, results, partial(_attach_content, folder))


def embed_bucket(containers: Any, address: str, results: Results) -> None:
    """Embed the documents of a bucket that the containers have mounted, as `embed_folder` does."""
    _embed(containers, containers.list_bucket.remote(address), results, lambda document: document)


def _embed(
    containers: Any,
    documents: Iterable[Document],
    results: Results,
    prepare: Callable[[Document], Document],
) -> None:
    missing = [document for document in documents if not results.has(document)]
    if missing:
        results.check_model(containers.fingerprint.remote)
    failed, pages = {document.name: "no answer" for document in missing}, 0
    with tqdm(total=len(missing), unit=" documents", disable=None) as progress:
        for embedded in _answers(containers, map(prepare, missing)) if missing else ():
            results.put(embedded)
            pages += len(embedded.pages)
            progress.update()
            if embedded.error is None:
                del failed[embedded.document.name]
            else:
                failed[embedded.document.name] = embedded.error
    done = len(missing) - len(failed)
    print(f"{count(pages, 'page')} of {count(done, 'document')} embedded")
    for name, error in failed.items():
        echo(f"failed: {name}: {error}", err=True)
    if failed:
        sys.exit(1)


def _find_documents(folder: Path) -> Found:
    found = find_documents([folder])
    for line in found.describe_links():
        print(line, file=sys.stderr)
    return found


def _answers(containers: Any, documents: Iterable[Document]) -> Iterator[EmbeddedDocument]:
    """Yield answers as they arrive, so that a long or failing document delays no other."""
    for answer in containers.embed_document.map(
        documents, order_outputs=False, return_exceptions=True
    ):
        if isinstance(answer, EmbeddedDocument):
            yield answer
        else:
            echo(f"a container failed: {answer!r}", err=True)


def _attach_content(folder: Path, document: Document) -> Document:
    return replace(document, content=(folder / document.relative).read_bytes())


def _widen(pages: Iterable[Page]) -> list[Page]:
    """Return `pages` with float32 vectors; they travel as float16."""
    return [replace(page, vectors=page.vectors.astype(np.float32)) for page in pages]
