"""Copy a store into another one, of whatever kind: exactly, and going on where it was stopped."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pagevec.errors import DocumentError, InvalidRequest, OtherModel
from pagevec.stores.base import Store
from pagevec.stores.fingerprint import check_model
from pagevec.types import DocumentRecord, MultiVector, Page, PageKey, Progress, TokenRows

_BATCH = 16
_WORKER = "export"
"""Who leases documents: all exports, so that one that was killed goes on without waiting."""
_LEASE_SECONDS = 120.0  # renewed with each batch
_SIGN_ERROR = 1e-3
"""Part of itself by which float16 moves one over the root of a dimension, at most."""
_NAMED = 5


@dataclass
class Exported:
    """What an export has done so far.

    Attributes:
        documents: how many documents are the same in both stores.
        pages: how many pages these have.
        copied: how many of them this run has copied.
        failed: why a document could not be copied, by its name.
    """

    documents: int = 0
    pages: int = 0
    copied: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def export(
    source: Store, target: Store, on_progress: Progress = lambda done, total: None
) -> Exported:
    """Copy all documents of a store into another one, which may hold others of the same model.

    Each page is read back and compared. The ledger record of a document comes after its pages, so
    an export that was killed can be repeated: documents whose record is there are done, and of the
    others those pages are copied that are missing, after a comparison of those that are there.

    Args:
        source: is not changed.
        target: where the documents go. Each is leased while it is copied, as for an ingestion.
        on_progress: called with the pages that are done, and all that there are.

    Returns:
        What was done. A document that cannot be copied costs no other one.

    Raises:
        OtherModel: the target has pages of another model.
        InvalidRequest: the target has other documents, or another folder, under a name that is in
            the source, too.
        StoreError: a store cannot be read or written.
    """
    records = {record.name: record for record in source.ledger.records()}
    counts = source.documents()
    _check_names(source, target, records)
    _agree_on_model(source, target)
    exported, passed, total = Exported(), 0, sum(counts.values())
    on_progress(0, total)
    for name in sorted({*records, *counts}):
        document = _Document(name, records.get(name), source, target)
        try:
            for pages in document.copy():
                on_progress(min(passed + pages, total), total)
        except DocumentError as error:
            exported.failed[name] = error.message
        else:
            exported.documents += 1
            exported.pages += len(document.numbers)
            exported.copied += document.copied
        passed += counts.get(name, 0)
        on_progress(passed, total)
    for label, folder in source.ledger.labels().items():
        target.ledger.set_label(label, folder)
    return exported


def _check_names(source: Store, target: Store, records: Mapping[str, DocumentRecord]) -> None:
    """Refuse a target in which a name means something else."""
    there = {record.name: record for record in target.ledger.records()}
    same_name = sorted(records.keys() & there.keys())
    others = [one for one in same_name if records[one].content_hash != there[one].content_hash]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise InvalidRequest(
            "the target has other documents of the same name: "
            f"{', '.join(map(repr, others[:_NAMED]))}{more}; remove them there, or export into "
            "another store"
        )
    folders = target.ledger.labels()
    for label, folder in source.ledger.labels().items():
        if folders.get(label, folder) != folder:
            raise InvalidRequest(
                f"documents labelled {label!r} are in {folder} for the source, and in "
                f"{folders[label]} for the target: export into another store"
            )


def _agree_on_model(source: Store, target: Store) -> None:
    """Refuse a target whose pages may be of another model; an empty one condenses as the source."""
    made, there, is_empty = source.fingerprint(), target.fingerprint(), not target.count()
    if (made is None) != (there is None) and not is_empty:
        raise OtherModel(
            f"the {'source' if made is None else 'target'} does not say which model its pages are "
            "of: they can be exported into an empty store only"
        )
    if made is not None:
        target.save_fingerprint(made)
        check_model(target, made)
    threshold = source.condensing()
    if threshold is not None and is_empty:
        target.save_condensing(threshold)


class _Document:
    """A document on its way from one store to another.

    Args:
        name: of the document.
        record: of the source's ledger, if there is one.
        source: where it is.
        target: where it goes.

    Attributes:
        numbers: of its pages.
        copied: how many pages were copied.
    """

    def __init__(
        self, name: str, record: DocumentRecord | None, source: Store, target: Store
    ) -> None:
        self._name = name
        self._record = record
        self._source = source
        self._target = target
        self._there = target.has(name)
        self.numbers = source.has(name)
        self.copied = 0

    def copy(self) -> Iterator[int]:
        """Copy what is missing, and yield after each step how many pages are done.

        Raises:
            DocumentError: the document cannot be copied.
        """
        if self._there - self.numbers:
            raise DocumentError(
                f"{self._name}: the target has pages of it that the source has not: remove it there"
            )
        known = self._target.ledger.record(self._name)
        if known is not None and known == self._record and self._there == self.numbers:
            return
        self._lease()
        try:
            yield from self._copy_pages()
            self._finish(known)
        except _CannotKeep:
            if not self._there and known is None:  # and so everything there is ours
                self._target.delete(self._name)
            raise
        finally:
            self._target.ledger.release(self._name, _WORKER)

    def _copy_pages(self) -> Iterator[int]:
        numbers = iter(sorted(self.numbers))
        done = 0
        while batch := [PageKey(self._name, number) for number in islice(numbers, _BATCH)]:
            self._lease()
            self._copy_batch(batch)
            done += len(batch)
            yield done

    def _copy_batch(self, keys: list[PageKey]) -> None:
        pages = self._source.fetch(keys)
        if len(pages) < len(keys):
            missing = {key.number for key in keys} - {page.key.number for page in pages}
            raise DocumentError(
                f"{self._name}: page {min(missing)} cannot be read in the source, where it is "
                "damaged or was removed meanwhile"
            )
        earlier_keys = [key for key in keys if key.number in self._there]
        earlier = {page.key: page for page in self._target.fetch(earlier_keys)}
        for page in (page for page in pages if page.key in earlier):
            what = _difference(page, earlier[page.key])
            if what is not None:
                raise DocumentError(
                    f"{self._name}: page {page.key.number} has other {what} in the target: remove "
                    "the document there, and export it again"
                )
        new = [page for page in pages if page.key not in earlier]
        self._target.add(new)
        written = {page.key: page for page in self._target.fetch([page.key for page in new])}
        for page in new:
            what = _difference(page, written[page.key]) if page.key in written else "contents"
            if what is not None:
                raise _CannotKeep(
                    f"{self._name}: the target cannot keep the {what} of page {page.key.number} "
                    "exactly as they are in the source"
                )
        self.copied += len(new)

    def _finish(self, known: DocumentRecord | None) -> None:
        """Write the record, if the document is still the one that was copied."""
        if self._source.ledger.record(self._name) != self._record:
            raise DocumentError(
                f"{self._name}: it was changed in the source while it was copied: remove it from "
                "the target, and export it again"
            )
        is_ahead = known is not None and known.complete
        if self._record is not None and not (is_ahead and not self._record.complete):
            self._target.ledger.write(self._record)

    def _lease(self) -> None:
        if not self._target.ledger.lease(self._name, _WORKER, _LEASE_SECONDS):
            raise DocumentError(
                f"{self._name}: another worker is writing it into the target: export it again later"
            )


class _CannotKeep(DocumentError):
    """The target holds something else than what was written into it."""


def _difference(page: Page, other: Page) -> str | None:
    """Return what differs between two pages, or None if nothing does."""
    if not _are_same(page.vectors, other.vectors):
        return "vectors"
    if _as_json(page) != _as_json(other):
        return "metadata"
    for name in ("text", "thumbnail", "grid"):
        if getattr(page, name) != getattr(other, name):
            return name
    if not _are_same_rows(page.token_rows, other.token_rows):
        return "map of tokens"
    return None


def _are_same_rows(rows: TokenRows | None, others: TokenRows | None) -> bool:
    return rows is others if rows is None or others is None else np.array_equal(rows, others)


def _as_json(page: Page) -> str:
    # In Python, 1 equals 1.0 and True.
    return json.dumps(dict(page.metadata), sort_keys=True)


def _are_same(vectors: MultiVector, others: MultiVector) -> bool:
    """Whether two multi-vectors are equal; of those that are signs only, the signs count."""
    if np.array_equal(vectors, others):
        return True
    both = vectors.shape == others.shape and _are_signs(vectors) and _are_signs(others)
    return both and np.array_equal(vectors > 0, others > 0)


def _are_signs(vectors: MultiVector) -> bool:
    length = 1 / np.sqrt(vectors.shape[1])
    return bool(np.allclose(np.abs(vectors), length, rtol=_SIGN_ERROR, atol=0))
