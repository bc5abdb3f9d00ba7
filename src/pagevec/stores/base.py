"""What a store of pages does: a handful of methods, and a ledger of documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pagevec.types import DocumentRecord, MultiVector, Page, PageKey


@dataclass(frozen=True)
class Filter:
    """Which pages a search looks at; an empty filter means all.

    Attributes:
        documents: names of documents; metadata: values that a page's metadata must have.
    """

    documents: frozenset[str] = frozenset()
    metadata: Mapping[str, Any] = field(default_factory=dict)


EVERYTHING = Filter()


class Store(Protocol):
    """Pages and their multi-vectors. May be used from several threads and processes at once."""

    def add(self, pages: Sequence[Page]) -> None:
        """Store `pages`, replacing those with the same key; all of them, durably, or none."""
        ...

    def has(self, document: str) -> frozenset[int]:
        """Return the numbers of the pages of `document` that are stored."""
        ...

    def delete(self, document: str) -> int:
        """Remove a document: its pages and its ledger record. Return how many pages it had."""
        ...

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        """Return up to `limit` pages worth scoring exactly for `query`, the likeliest first."""
        ...

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        """Return the pages of `keys`, in their order; those that are gone are left out."""
        ...

    def count(self) -> int:
        """Return the number of pages."""
        ...

    def probe(self) -> MultiVector | None:
        """Return what the pages' model makes of the probe text, where that is known."""
        ...

    def keep_probe(self, vectors: MultiVector) -> None:
        """Keep what the model makes of the probe text, unless there are pages and it is known."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


class Ledger(Protocol):
    """What a store also keeps, so that ingestion can be killed and go on."""

    def record(self, document: str) -> DocumentRecord | None:
        """Return what is known of `document`."""
        ...

    def write(self, record: DocumentRecord) -> None:
        """Insert or replace the record of a document, durably."""
        ...

    def claim(self, document: str, worker: str, seconds: float) -> bool:
        """Take `document` for `worker` for so long, unless another worker has it. Renewable."""
        ...

    def release(self, document: str, worker: str) -> None:
        """Give a claim back."""
        ...

    def records(self) -> list[DocumentRecord]:
        """Return all records, by name."""
        ...


class DocumentStore(Store, Ledger, Protocol):
    """A store with its ledger: what ingestion and search are handed."""
