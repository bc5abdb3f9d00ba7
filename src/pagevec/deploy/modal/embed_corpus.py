"""`modal run ...::embed`, on the machine that starts it: a corpus over many containers."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import modal
from tqdm import tqdm

from pagevec.deploy.modal.corpus import (
    Document,
    EmbeddedDocument,
    documents_of_folder,
    with_content,
)
from pagevec.deploy.modal.results import Results, Shards, Stored
from pagevec.errors import InvalidRequest
from pagevec.stores.open import open_store


def results_in(folder: Path, store: str) -> Results:
    """Return where results go: into `store` where one is named, else into `folder`."""
    return Stored(open_store(store)) if store else Shards(folder)


def bucket_mount(address: str, secret: str, endpoint: str) -> modal.CloudBucketMount:
    """Return the bucket at `address`, such as s3://bucket/reports, to be mounted for reading.

    Raises:
        InvalidRequest: the address names no bucket.
    """
    parts = urlsplit(address)
    if not parts.netloc:
        raise InvalidRequest(f"{address} names no bucket: write s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return modal.CloudBucketMount(
        parts.netloc,
        bucket_endpoint_url=endpoint or None,
        key_prefix=f"{prefix}/" if prefix else None,
        secret=modal.Secret.from_name(secret) if secret else None,
        read_only=True,
    )


def embed_folder(containers: Any, folder: Path, results: Results) -> None:
    """Send the documents of `folder` to containers, those that are not in `results` yet."""
    todo = [document for document in documents_of_folder(folder) if not results.has(document)]
    _run(containers, todo, partial(with_content, folder=folder), results)


def embed_bucket(containers: Any, address: str, results: Results) -> None:
    """Do the same with a bucket, which the containers have mounted and read themselves."""
    todo = [one for one in containers.documents.remote(address) if not results.has(one)]
    _run(containers, todo, lambda document: document, results)


def _run(
    containers: Any,
    todo: list[Document],
    ready_to_send: Callable[[Document], Document],
    results: Results,
) -> None:
    failed, pages = {document.name: "no answer" for document in todo}, 0
    with tqdm(total=len(todo), unit=" documents") as progress:
        for embedded in _answers(containers, map(ready_to_send, todo)) if todo else ():
            results.put(embedded)
            pages += len(embedded.pages)
            progress.update()
            if embedded.error is None:
                del failed[embedded.document.name]
            else:
                failed[embedded.document.name] = embedded.error
    print(f"{pages} pages of {len(todo) - len(failed)} documents embedded")
    for name, error in failed.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    if failed:
        sys.exit(1)


def _answers(containers: Any, documents: Iterable[Document]) -> Iterator[EmbeddedDocument]:
    """Yield answers as they come: a long document, or one that fails, holds nobody up."""
    for answer in containers.embed_document.map(
        documents, order_outputs=False, return_exceptions=True
    ):
        if isinstance(answer, EmbeddedDocument):
            yield answer
        else:
            print(f"a container failed: {answer!r}", file=sys.stderr)
