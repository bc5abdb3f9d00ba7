"""The ingestion worker: documents go through a model into a store, each page once.

Killed at any moment and started again, it goes on where it stopped: a page is in the store or it
is not, the ledger knows each document by the hash of its content, and a document counts as
complete only after its last page was stored.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from pagevec.errors import DocumentError, InvalidRequest, PagevecError
from pagevec.ingest import LEASE_SECONDS
from pagevec.ingest.boundary import open_document
from pagevec.ingest.catalogue import is_of_another_program, note_failure
from pagevec.ingest.leases import Leases
from pagevec.ingest.names import SourceDocument, hash_file
from pagevec.ingest.objects import RemoteObject
from pagevec.ingest.page import ReadOptions
from pagevec.ingest.pipeline import (
    PageFault,
    describe_faults,
    embed_in_batches,
    is_of_the_service,
    run_in_order,
    stopping,
    store_pages,
)
from pagevec.ingest.twins import Twins
from pagevec.stores.base import Store
from pagevec.stores.condense import agree_on_threshold
from pagevec.stores.fingerprint import FINGERPRINT_TEXT, agree_on_model
from pagevec.types import DocumentRecord, Model, Progress

log = logging.getLogger(__name__)

_Version = tuple[int, int, int] | None
"""What changes when a file is written: its time, its size, its number; None without a file."""
T = TypeVar("T")

# Documents ingested at once, so that files of one page keep the model as busy as long ones.
_DOCUMENTS_AT_ONCE = 4


@dataclass(frozen=True)
class Outcome:
    """What became of a document.

    Attributes:
        document: its name.
        stored: pages that were stored now.
        pages: pages that it has; None where that is not known.
        skipped: whether it was complete in the store already.
        error: why it failed, or which pages are missing.
        faults: the pages that could not be stored, each with its reason.
        warnings: what a user should know about what was stored.
        same_as: name of the document with the same content whose pages were taken over.
        is_temporary: whether another try may succeed although the document stays as it is.
    """

    document: str
    stored: int = 0
    pages: int | None = None
    skipped: bool = False
    error: str | None = None
    faults: tuple[PageFault, ...] = ()
    warnings: tuple[str, ...] = ()
    same_as: str | None = None
    is_temporary: bool = False


class Worker:
    """Ingests documents into a store. Several workers may share one store.

    Args:
        store: takes the pages.
        model: embeds them.
        lease_seconds: how long other workers wait before they take over the documents of a
            worker that was killed.
        options: how documents are read; their pages are made of the size that the model sees.
        name: of the worker, for one that takes the place of another of this name that has ended;
            see `Leases`.
        condense: the threshold of a new store; see `agree_on_threshold`.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        *,
        lease_seconds: float = LEASE_SECONDS,
        options: ReadOptions | None = None,
        name: str | None = None,
        condense: float | None = None,
    ) -> None:
        self._name = name
        self._condense = condense
        self._store = store
        self._model = model
        self._lease_seconds = lease_seconds
        self._options = options or ReadOptions()

    def ingest(
        self,
        documents: Iterable[SourceDocument],
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
        stopped: Event | None = None,
    ) -> list[Outcome]:
        """Ingest `documents`, some at once, and return what became of each.

        A document that fails stops no other, a page that fails no other page. Documents that
        another worker holds are waited for: when this returns, all of them are complete or have
        failed.

        Args:
            documents: named documents; see `pagevec.ingest.names`.
            on_progress: called with the pages done and the pages known so far.
            on_outcome: called with each outcome as it comes.
            stopped: once it is set, no page is begun any more; pages that are left out are faults
                of their document, and documents that were not begun have no outcome.

        Raises:
            StoreError: the pages in the store were embedded by another model.
            InvalidRequest: the store has another threshold than the one asked for.
        """
        [fingerprint] = self._model.embed_texts([FINGERPRINT_TEXT])
        agree_on_model(self._store, fingerprint)
        info = self._model.info()
        run = _Run(
            replace(self._options, resizing=info.resizing),
            agree_on_threshold(self._store, info, self._condense),
            _PageCount(on_progress),
            Twins(self._store),
            stopped or Event(),
        )
        outcomes: list[Outcome] = []
        left = list(documents)
        is_first = True
        with Leases(self._store.ledger, self._lease_seconds, self._name) as leases:
            while left and not run.stopped.is_set():
                waiting = []
                # First whatever needs no model: an edit may take away the very pages that a
                # renamed file still has to take over.
                ingest = partial(self._ingest_leased, leases, run, is_first)
                with closing(_do_some_at_once(ingest, left, run.stopped)) as done:
                    for document, outcome in done:
                        if outcome is None:
                            waiting.append(document)
                        else:
                            outcomes.append(outcome)
                            on_outcome(outcome)
                if waiting and not is_first:
                    run.stopped.wait(min(1.0, self._lease_seconds / 2))
                left, is_first = waiting, False
        return outcomes

    def _ingest_leased(
        self, leases: Leases, run: "_Run", reuse_only: bool, document: SourceDocument
    ) -> tuple[SourceDocument, Outcome | None]:
        """Ingest one document; the outcome is None if it is still to be done."""
        try:
            with leases.hold(document.name) as is_mine:
                return document, self._ingest(document, run, reuse_only) if is_mine else None
        except Exception as error:  # whatever it is: it is the end of this document alone
            sentence = explain_failure(error, document.shown)
            log.error("%s: %s", document.name, sentence)
            self._note_failure(document.name, sentence)
            is_temporary = not isinstance(error, DocumentError) and is_of_the_service(error)
            return document, Outcome(document.name, error=sentence, is_temporary=is_temporary)

    def _ingest(self, document: SourceDocument, run: "_Run", reuse_only: bool) -> Outcome | None:
        if isinstance(document.path, RemoteObject):
            return self._ingest_object(document, document.path.version, run, reuse_only)
        outcome, _ = self._ingest_file(document, document.path, run, reuse_only)
        return outcome

    def _ingest_object(
        self, document: SourceDocument, version: str | None, run: "_Run", reuse_only: bool
    ) -> Outcome | None:
        """Ingest an object, which is fetched unless the ledger knows this version of it."""
        known = self._store.ledger.record(document.name)
        if known is not None and known.complete and version == known.version is not None:
            return self._skip(known)
        if reuse_only:  # it would be fetched twice
            return None
        with document.at_hand() as file:
            outcome, content_hash = self._ingest_file(document, file, run, reuse_only)
        record = self._store.ledger.record(document.name)
        if record is not None and record.complete and record.content_hash == content_hash:
            self._store.ledger.write(replace(record, version=version))
        return outcome

    def _ingest_file(
        self, document: SourceDocument, file: Path, run: "_Run", reuse_only: bool
    ) -> tuple[Outcome | None, str]:
        """Ingest a document from its file; return the outcome and the hash of its content."""
        version, content_hash = _read_version(file), hash_file(file)
        with run.twins.alone(content_hash):
            outcome = self._reuse(document, content_hash, run)
            if outcome is None and not reuse_only:
                outcome = self._embed(document, file, version, content_hash, run)
            return outcome, content_hash

    def _reuse(self, document: SourceDocument, content_hash: str, run: "_Run") -> Outcome | None:
        """Return the outcome of a document whose content is in the store already, else None."""
        name, ledger = document.name, self._store.ledger
        known = ledger.record(name)
        if is_of_another_program(self._store, name, known):
            raise InvalidRequest(
                f"the store has pages named {name!r} that another program wrote; "
                "give the folder another label (--as LABEL)"
            )
        if known is not None and known.content_hash == content_hash and known.complete:
            return self._skip(known)
        twin = run.twins.take_over(name, content_hash)
        return None if twin is None else Outcome(name, pages=twin.pages, same_as=twin.name)

    def _skip(self, known: DocumentRecord) -> Outcome:
        if known.error is not None:  # of an edit that was undone
            self._store.ledger.write(replace(known, error=None))
        return Outcome(known.name, pages=known.pages, skipped=True)

    def _embed(
        self,
        document: SourceDocument,
        file: Path,
        version: _Version,
        content_hash: str,
        run: "_Run",
    ) -> Outcome:
        name, ledger = document.name, self._store.ledger
        known = ledger.record(name)
        is_edited = known is not None and known.content_hash != content_hash

        def replace_former() -> None:
            if is_edited:
                self._store.delete(name)  # no page of the former version may stay
            ledger.write(record)

        with open_document(file, run.options, document.shown) as pages:
            record = DocumentRecord(name, content_hash, pages.count)
            there = frozenset() if is_edited else self._store.has(name)
            missing = [number for number in range(1, pages.count + 1) if number not in there]
            run.progress.expect(len(missing))
            batches = embed_in_batches(
                self._model,
                name,
                pages,
                missing,
                run.options.resizing,
                run.stopped.is_set,
                run.threshold,
            )
            done = store_pages(self._store, batches, replace_former, run.progress.count)
            warnings = (*pages.warnings, *done.warnings)
        if _read_version(file) not in (version, None):
            ledger.write(replace(record, content_hash=""))  # of no version: it is read again
            raise DocumentError("the file changed while it was read; ingest it again")
        error = describe_faults(pages.count, done.faults)
        # A document that was interrupted has not failed: whoever comes next goes on with it.
        is_interrupted = any(fault.is_left_out for fault in done.faults)
        noted = None if is_interrupted else error
        if is_edited and known is not None and known.pages and not done.stored:
            ledger.write(replace(known, error=noted))  # the last good version stays
        else:
            ledger.write(replace(record, complete=not done.faults, error=noted))
        if not done.faults:
            run.twins.learn(name, content_hash)
        log.info("%s: %d pages stored%s", name, done.stored, f"; {error}" if error else "")
        return Outcome(
            name, done.stored, pages.count, error=error, faults=done.faults, warnings=warnings
        )

    def _note_failure(self, name: str, error: str) -> None:
        """Note in the ledger why a document failed; a ledger that refuses is only logged."""
        try:
            note_failure(self._store, name, error)
        except Exception as failure:
            log.error("%r: the failure could not be noted: %s", name, failure)


@dataclass(frozen=True)
class _Run:
    options: ReadOptions
    threshold: float
    progress: "_PageCount"
    twins: Twins
    stopped: Event


class _PageCount:
    """Pages done, of all that are known so far, summed over documents of several threads."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._done = self._total = 0
        self._lock = threading.Lock()

    def expect(self, pages: int) -> None:
        with self._lock:
            self._total += pages
            self._report(self._done, self._total)

    def count(self, pages: int) -> None:
        with self._lock:
            self._done += pages
            self._report(self._done, self._total)


def explain_failure(error: Exception, shown: str) -> str:
    """Return a sentence for whatever ended a document, whose file it calls `shown`."""
    if isinstance(error, PagevecError):
        message = error.message
    elif isinstance(error, OSError) and error.strerror:
        message = error.strerror
    else:
        message = f"{type(error).__name__}: {error}"
    sentence = message if shown in message else f"{shown}: {message}"
    return sentence.replace("\0", "").encode("utf-8", "backslashreplace").decode()


def _read_version(path: Path) -> _Version:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _do_some_at_once(
    ingest: Callable[[SourceDocument], T], documents: Iterable[SourceDocument], stopped: Event
) -> Generator[T, None, None]:
    with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE, "pagevec-document") as pool:
        tasks = (partial(ingest, document) for document in documents)
        with stopping(stopped):
            yield from run_in_order(pool, tasks, ahead=2 * _DOCUMENTS_AT_ONCE)
