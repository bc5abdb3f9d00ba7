"""Where an embedded corpus goes: a folder of .npz files, or a store."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pagevec.deploy.modal.corpus import Document, EmbeddedDocument
from pagevec.stores.base import DocumentStore
from pagevec.types import DocumentRecord


class Results(Protocol):
    """What becomes of embedded documents."""

    def has(self, document: Document) -> bool:
        """Say whether this version of `document` is here completely."""
        ...

    def put(self, embedded: EmbeddedDocument) -> None:
        """Keep a document's pages, durably, all or none; or note why there are none."""
        ...


class Shards:
    """One .npz for each document, as `pagevec embed` writes it, and the document's version."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, document: Document) -> bool:
        shard = self._shard(document)
        if not shard.is_file():
            return False
        with np.load(shard, allow_pickle=False) as arrays:
            return str(arrays["version"]) == document.version

    def put(self, embedded: EmbeddedDocument) -> None:
        if embedded.error is not None:
            return
        shard = self._shard(embedded.document)
        shard.parent.mkdir(parents=True, exist_ok=True)
        file = Path(embedded.document.relative).name
        arrays: dict[str, Any] = {
            f"emb_{index}": page.vectors.astype(np.float32)
            for index, page in enumerate(embedded.pages)
        }
        names = np.array([f"{file}#{page.key.number}" for page in embedded.pages])
        draft = shard.with_name(shard.name + ".part")
        with draft.open("wb") as out:
            np.savez(out, names=names, version=np.array(embedded.document.version), **arrays)
        draft.replace(shard)  # whoever is killed leaves a whole shard, or none

    def _shard(self, document: Document) -> Path:
        return self._folder / f"{document.relative}.npz"


class Stored:
    """Pages in a store, documents in its ledger, as `pagevec ingest` leaves them."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def has(self, document: Document) -> bool:
        known = self._store.record(document.name)
        return known is not None and known.complete and known.content_hash == document.version

    def put(self, embedded: EmbeddedDocument) -> None:
        document, pages = embedded.document, embedded.pages
        record = DocumentRecord(document.name, document.version, len(pages), error=embedded.error)
        if embedded.error is not None:
            self._store.write(replace(record, pages=None))
            return
        self._store.delete(document.name)  # no page of an older version may stay
        self._store.write(record)
        self._store.add([replace(p, vectors=p.vectors.astype(np.float32)) for p in pages])
        self._store.write(replace(record, complete=True))
