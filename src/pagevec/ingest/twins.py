"""The same content under several names: embedded once, and copied from document to document."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TypeGuard

from pagevec.ingest.page import page_under
from pagevec.stores.base import Store
from pagevec.types import DocumentRecord, PageKey

# Pages copied in one transaction.
_COPIED_AT_ONCE = 64


class Twins:
    """Complete documents of a store by the hash of their content.

    Args:
        store: holds them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._at_work: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._by_hash: defaultdict[str, list[str]] = defaultdict(list)
        for record in store.ledger.records():
            if record.complete:
                self.learn(record.name, record.content_hash)

    def learn(self, name: str, content_hash: str) -> None:
        """Remember a complete document."""
        with self._lock:
            self._by_hash[content_hash].append(name)

    @contextmanager
    def alone(self, content_hash: str) -> Iterator[None]:
        """Let one thread at a time work on documents with this content."""
        with self._lock:
            lock = self._at_work[content_hash]
        with lock:
            yield

    def take_over(self, name: str, content_hash: str) -> DocumentRecord | None:
        """Give `name` the pages of a complete document with this content.

        Returns:
            The record of that document, which keeps its pages; None if there is none.
        """
        with self._lock:  # one after the other: an edited document may be needed by another one
            for other in self._by_hash.get(content_hash, ()):
                record = self._store.ledger.record(other)
                if other != name and _is_whole(record, content_hash) and self._copy(record, name):
                    self.learn(name, content_hash)
                    return record
        return None

    def _copy(self, record: DocumentRecord, name: str) -> bool:
        """Copy the pages of a document; False if another process changed it meanwhile."""
        own = replace(record, name=name, complete=False, error=None, version=None)
        self._store.delete(name)
        self._store.ledger.write(own)
        numbers = iter(sorted(self._store.has(record.name)))
        while some := list(islice(numbers, _COPIED_AT_ONCE)):
            pages = self._store.fetch([PageKey(record.name, number) for number in some])
            self._store.add([page_under(name, page) for page in pages])
        is_unchanged = _is_whole(self._store.ledger.record(record.name), record.content_hash)
        if not is_unchanged or len(self._store.has(name)) != record.pages:
            self._store.delete(name)
            return False
        self._store.ledger.write(replace(own, complete=True))
        return True


def _is_whole(record: DocumentRecord | None, content_hash: str) -> TypeGuard[DocumentRecord]:
    return record is not None and record.complete and record.content_hash == content_hash
