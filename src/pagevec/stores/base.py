"""What a store of pages does, the ledger of documents that it keeps, and what all stores share."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, Self

import numpy as np

from pagevec.errors import OtherModel, StoreError
from pagevec.types import DocumentRecord, MultiVector, Page, PageKey
from pagevec.wire.quantize import int8_drift

log = logging.getLogger(__name__)

_TOLERANCE = 0.2
"""By how much the squared length of a unit vector may differ from 1, or by more if int8 does that:
0.09 at most in 128 dimensions, 0.57 in 4,096. float16 changes it less."""


@dataclass(frozen=True)
class Filter:
    """Which pages a search considers; an empty filter means all of them.

    Attributes:
        documents: names of documents; empty for all.
        metadata: values that a page's metadata must have.
    """

    documents: frozenset[str] = frozenset()
    metadata: Mapping[str, Any] = field(default_factory=dict)


EVERYTHING = Filter()


@dataclass(frozen=True)
class TextMatch:
    """How well the text layer of a page answers the words of a query.

    Attributes:
        score: BM25; 0 where it has none of the words that tell pages apart.
        terms: those that it has.
    """

    score: float = 0.0
    terms: frozenset[str] = frozenset()


NO_STORE = "check the name; `pagevec ingest` makes a new store"
"""What to do where a store was looked for and is not there."""


class Ledger(Protocol):
    """What a store knows about documents, so that ingestion can be killed and resumed.

    Every method raises StoreError if the store cannot be read or written.
    """

    def record(self, document: str) -> DocumentRecord | None:
        """Return the record of `document`, or None if there is none."""

    def records(self) -> list[DocumentRecord]:
        """Return all records, sorted by name."""

    def write(self, record: DocumentRecord) -> None:
        """Insert or replace the record of a document, durably."""

    def lease(self, document: str, worker: str, seconds: float) -> bool:
        """Lease `document` to `worker`, or renew its lease.

        Args:
            document: name of the document, which need not be in the store yet.
            worker: name of the worker, unique among all that share the store.
            seconds: how long the lease lasts unless it is renewed or released.

        Returns:
            Whether `worker` holds the lease now; False while another worker holds it.
        """

    def release(self, document: str, worker: str) -> None:
        """End the lease of `document` if `worker` holds it."""

    def labels(self) -> dict[str, str]:
        """Return the absolute path of the folder behind each label."""

    def set_label(self, label: str, folder: str) -> None:
        """Record that documents named `label/...` are in `folder`, durably.

        Args:
            label: first part of the documents' names.
            folder: absolute path of the folder; replaces the one that the label had.
        """


class Store(Protocol):
    """Pages with their multi-vectors, and a ledger of documents.

    Several threads and processes may use one store at the same time. A store object belongs to
    the process that made it: after a fork, open the store again. As a context manager it closes
    itself at the end.

    Every method raises StoreError if the store cannot be read or written, or if it was opened
    before a fork.

    Attributes:
        ledger: what the store knows about documents.
        shortlist: how many candidates a search asks for at least; it scores them exactly until the
            best ones are found (`search.retriever`).
    """

    ledger: Ledger
    shortlist: int = 6000

    def add(self, pages: Sequence[Page]) -> None:
        """Store `pages`, replacing those with the same keys: all of them, durably, or none.

        Args:
            pages: each with vectors of shape (vectors, dim), where dim is the store's: that of the
                pages that it has, any if it has none. Of pages with equal keys the last one counts.

        Raises:
            OtherModel: a page has vectors of another dimension than the store.
            StoreError: a page has vectors that are not of unit length.
        """

    def has(self, document: str) -> frozenset[int]:
        """Return the numbers of the stored pages of `document`."""

    def delete(self, document: str) -> int:
        """Delete a document, that is its pages and its ledger record.

        Returns:
            How many pages it had.
        """

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename documents in one transaction: all of them, durably, or none.

        Pages and ledger records get the new name and keep everything else. Leases stay with the
        old name, so hold them for documents that other workers may be ingesting.

        Args:
            names: the new name for each old name.

        Raises:
            StoreError: an old name is not in the ledger, or a new name is taken.
        """

    def prepare(self) -> None:
        """Read what every search needs, while its query is being embedded.

        A store that needs nothing of the kind, as this one, does nothing.
        """
        return None

    def candidates(
        self, query: MultiVector, limit: int, where: Filter = EVERYTHING
    ) -> list[PageKey]:
        """Return the pages that are worth scoring exactly for `query`.

        Args:
            query: a multi-vector, float32 (vectors, dim).
            limit: how many pages to return at most, and a third of them at least if there are so
                many; exceeded in a small store and under a filter, where every page that passes is
                a candidate.
            where: which pages to consider.

        Returns:
            Keys of pages, the most promising first; in no order under a filter, and where there are
            fewer than `hamming.SCAN_FROM`.

        Raises:
            OtherModel: the query has another dimension than the store's vectors.
        """

    def find_words(
        self, terms: Sequence[str], limit: int, keys: Sequence[PageKey]
    ) -> dict[PageKey, TextMatch]:
        """Return the pages whose text layers answer a query best, and how well others do.

        Terms that most pages have are left out (`bm25.telling`). A store that keeps no words, as
        this one, finds none.

        Args:
            terms: of the query, as `QueryWords` makes them, each once.
            limit: how many pages to return at most beside `keys`. None are needed under a filter,
                where every page that passes is a candidate already.
            keys: pages to score in any case.

        Returns:
            A match for each of the best pages, and for those of `keys` that have a text layer.
        """
        return {}

    def fetch(self, keys: Sequence[PageKey]) -> list[Page]:
        """Return pages with everything that is stored of them.

        Args:
            keys: which pages.

        Returns:
            Pages in the order of `keys`, each with vectors float32 (vectors, dim); a page that is
            not in the store, or is damaged there, is left out. The log names damaged pages.
        """

    def fetch_vectors(self, keys: Sequence[PageKey]) -> Iterator[Page]:
        """Yield pages as `fetch` returns them; those of some stores are without text and thumbnail.

        A store on this machine reads each page as it is asked for, so that the memory of one is
        used again for the next.

        Args:
            keys: which pages.
        """
        yield from self.fetch(keys)

    def index_pages(self, *, again: bool = False) -> int:
        """Put some hundred pages into what makes searches fast, if so many wait for it.

        Each `add` does that, so that it grows as pages come; a store of an older version catches
        up by it. A store that needs none, as this one, does nothing.

        Args:
            again: whether all that was made before is forgotten first.

        Returns:
            How many pages were put there; 0 if there is nothing to do.
        """
        return 0

    def documents(self) -> dict[str, int]:
        """Return how many pages of each document are stored, whoever wrote them."""

    def metadata_names(self) -> frozenset[str]:
        """Return the names of all values that the metadata of pages has."""

    def count(self) -> int:
        """Return the number of pages."""

    def fingerprint(self) -> MultiVector | None:
        """Return the fingerprint of the model that embedded the pages.

        Returns:
            The embedding of `FINGERPRINT_TEXT`, float32 (vectors, dim); None if none is saved.
        """

    def save_fingerprint(self, vectors: MultiVector) -> None:
        """Save the model fingerprint, unless the store has one already, and pages.

        Args:
            vectors: the embedding of `FINGERPRINT_TEXT`, float32 (vectors, dim).

        Raises:
            OtherModel: the store has pages of another dimension.
        """

    def condensing(self) -> float | None:
        """Return the cosine from which on near-duplicate vectors of a page are kept once.

        Returns:
            The threshold, see `stores.condense`; None if none is saved.
        """

    def save_condensing(self, threshold: float) -> None:
        """Save the threshold for pages that are added from now on.

        The store does not condense pages: whoever adds them does.
        """

    def revise(self, keys: Sequence[PageKey], change: Callable[[Page], Page]) -> int:
        """Change the vectors of pages where they are, whoever else writes to them meanwhile.

        Args:
            keys: of the pages; those that are gone, damaged, or have sign bits alone because
                another program wrote them, are left out.
            change: returns a page with other `vectors` and `token_rows`, or the same one.

        Returns:
            How many pages were changed.
        """

    def give_back_space(self) -> str:
        """Give disk space that pages have left free back to the system, if the store can.

        Returns:
            What was done, or who else does it: a clause.
        """

    def close(self) -> None:
        """Release files and connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_rename(names: Mapping[str, str], known: Collection[str], taken: Collection[str]) -> None:
    """Refuse a rename that would lose or merge documents.

    Args:
        names: the new name for each old name.
        known: those old names that are in the ledger.
        taken: those new names that a document has already.

    Raises:
        StoreError: an old name is unknown, a new name is taken, or two new names are equal.
    """
    for old in names:
        if old not in known:
            raise StoreError(f"cannot rename {old!r}: no such document in the store's ledger")
    chosen = set(taken)
    for old, new in names.items():
        if new in chosen:
            raise StoreError(f"cannot rename {old!r} to {new!r}: the name is taken")
        chosen.add(new)


def check_vectors(pages: Sequence[Page]) -> int:
    """Let only unit vectors of one dimension into a store.

    Args:
        pages: to be stored, one at least.

    Returns:
        The dimension of their vectors.

    Raises:
        StoreError: a page has other vectors.
    """
    dims = sorted({page.vectors.shape[1] for page in pages})
    if len(dims) > 1 or dims == [0]:
        raise StoreError(
            "the pages of a store need vectors of one dimension, these have "
            f"{' and '.join(map(str, dims))}: the model that embedded them is at fault"
        )
    for page in pages:
        if not are_unit(page.vectors):
            raise StoreError(
                f"{page.key.document}, page {page.key.number}: its vectors are not of unit length; "
                "the model that embedded it is at fault"
            )
    return int(dims[0])


def are_unit(vectors: MultiVector) -> bool:
    """Whether all of `vectors` (vectors, dim) are finite and of unit length, as far as stored."""
    tolerance = max(_TOLERANCE, (1 + int8_drift(vectors.shape[1])) ** 2 - 1)
    with np.errstate(all="ignore"):  # of damaged ones
        squares = np.vecdot(vectors, vectors)
        least, most = squares.min(initial=1), squares.max(initial=1)
        # Both are NaN where one of them is, which is in no range.
        return bool(1 - tolerance <= least and most <= 1 + tolerance)


def other_dimension(known: int, given: int) -> OtherModel:
    """Return the error of vectors that do not go with those of a store.

    Args:
        known: dimension of the vectors in the store.
        given: dimension of the others.
    """
    return OtherModel(
        f"the store has vectors of {known} dimensions, these have {given}: use the model that "
        "embedded its pages, or another store for this one (a folder or a database of its own)"
    )


class DamagedPages:
    """Pages of a store that cannot be used as they are: each is logged once, and counted.

    Args:
        store: names the store in the log.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._known: set[PageKey] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    @contextmanager
    def noting(self, page: PageKey) -> Iterator[None]:
        """Leave the block where the bytes of `page` are not what they should be, and log that."""
        try:
            yield
        except (ValueError, TypeError) as error:
            self._note(page, error)

    def _note(self, page: PageKey, reason: Exception) -> None:
        with self._lock:
            is_known = page in self._known
            self._known.add(page)
        if not is_known:
            log.warning(
                "%s: %r, page %d is damaged and left out of searches (%s): remove the document and "
                "ingest it again",
                self._store,
                page.document,
                page.number,
                reason,
            )


class ProcessGuard:
    """Keeps connections in the process that opened them: two processes cannot share one.

    Args:
        name: names what was opened in errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()

    def is_at_home(self) -> bool:
        """Whether this is the process that opened it."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Raise StoreError in another process than the one that opened it."""
        if not self.is_at_home():
            raise StoreError(
                f"{self._name} was opened before this process was forked: open it again in this one"
            )
