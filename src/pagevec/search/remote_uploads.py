"""Documents on their way to a service: sent, some at once, and followed until they are ingested."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pagevec.client import Client
from pagevec.client.core import Send
from pagevec.client.faults import ServiceError
from pagevec.client.forms import FileForm
from pagevec.client.requests import json_reader
from pagevec.errors import DocumentError, NotFound, ObjectError
from pagevec.ingest.names import SourceDocument, check_label, name_below
from pagevec.ingest.pipeline import run_in_order
from pagevec.ingest.sources import Found, Place, escape
from pagevec.ingest.worker import Outcome, explain_failure
from pagevec.search.remote_documents import RemoteDocument, ask_for_documents, path_of
from pagevec.types import Progress

_AT_ONCE = 4  # documents: some are sent while others are ingested
_DONE, _ACCEPTED, _STORAGE_FULL = 200, 202, 507
# What a service answers to a file that it does not take. Any other error is the end of all.
_REFUSED = frozenset({400, 413, 415, _STORAGE_FULL})
_SLOWEST = 64 * 1024  # bytes a second; a connection that is slower uses up the patience
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two looks at a document


def name_for_service(found: Found, label: str | None = None) -> list[SourceDocument]:
    """Name documents by their folders alone: a service remembers no folders.

    Args:
        found: documents below folders, or named themselves.
        label: first part of their names; default: the name of their folder.

    Raises:
        InvalidRequest: a folder needs a label of its own, or `label` is not one.
    """
    labels: dict[str, Place] = {}
    for folder in dict.fromkeys(one.folder for one in found.documents):
        own = escape(label or folder.name)
        check_label(own, folder, labels)
        labels[own] = folder
    return [
        SourceDocument(name_below(escape(label or one.folder.name), one.below), one.path)
        for one in found.documents
    ]


def upload(
    client: Client,
    documents: Sequence[SourceDocument],
    on_progress: Progress,
    on_outcome: Callable[[Outcome], object],
) -> list[Outcome]:
    """Send documents to a service, and return what became of each once it is ingested.

    A document that the service refuses stops no other.

    Args:
        client: sends them.
        documents: with the names that they shall have there.
        on_progress: called with the pages stored and the pages known so far.
        on_outcome: called with each outcome as it comes.

    Raises:
        NoStore: the service has no store.
        PagevecError: one of `pagevec.client.faults`: it cannot be reached, or takes no documents.
    """
    run = _Run(client, _PageCount(on_progress))
    # A key that is refused, or a service without a store, is known before any file is sent.
    ask_for_documents(client, Send("GET", "/documents?limit=1"), lambda answer: None)
    outcomes: list[Outcome] = []
    pool = ThreadPoolExecutor(_AT_ONCE, "pagevec-upload")
    try:
        tasks = (partial(run.ingest, document) for document in documents)
        for outcome in run_in_order(pool, tasks, ahead=2 * _AT_ONCE):
            outcomes.append(outcome)
            on_outcome(outcome)
    finally:
        # After an error: threads that are still at work ask nothing more and are not awaited.
        run.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return outcomes


@dataclass(frozen=True)
class _Run:
    """One call of `upload`; `stop` is set at its end."""

    client: Client
    pages: "_PageCount"
    stop: threading.Event = field(default_factory=threading.Event)

    def ingest(self, document: SourceDocument) -> Outcome:
        """Send one document, and wait until the service has done with it."""
        try:
            accepted = self._send(document)
        except (DocumentError, ObjectError, OSError) as error:
            sentence = explain_failure(error, document.shown)
            return Outcome(
                document.name, error=sentence, is_temporary=isinstance(error, ObjectError)
            )
        except ServiceError as error:
            status = error.response.status_code
            if status not in _REFUSED:
                raise
            sentence = explain_failure(error, document.shown)
            return Outcome(document.name, error=sentence, is_temporary=status == _STORAGE_FULL)
        if accepted.is_complete:
            return Outcome(accepted.name, pages=accepted.pages, skipped=True)
        return self._follow(accepted)

    def _send(self, document: SourceDocument) -> RemoteDocument:
        with document.at_hand() as file:
            form = FileForm.of(file, document.name)
            request = Send(
                "POST",
                "/documents",
                form,
                form.headers,
                statuses=(_DONE, _ACCEPTED),
                sending_seconds=form.file_bytes / _SLOWEST,
            )
            return self.client.ask(request, json_reader(_read_only_one), self.stop)

    def _follow(self, document: RemoteDocument) -> Outcome:
        before = 0 if document.has_former_version else document.stored
        pause = _FIRST_PAUSE
        read = json_reader(RemoteDocument.from_json)
        while not document.is_settled:
            if self.stop.wait(pause):
                raise CancelledError
            pause = min(1.5 * pause, _LONGEST_PAUSE)
            try:
                document = self.client.ask(Send("GET", path_of(document.id)), read, self.stop)
            except ServiceError as error:
                if error.response.status_code != NotFound.status:
                    raise
                return Outcome(document.name, error="it was removed before all of it was stored")
            self.pages.note(document, before)
        # A document that is complete with an error has the pages of its last good version.
        is_unchanged = document.is_complete and document.error is not None
        stored = 0 if is_unchanged else max(0, document.stored - before)
        return Outcome(document.name, stored, document.pages, error=document.error)


class _PageCount:
    """Pages stored, of all that are known so far, summed over documents of several threads."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._counts: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def note(self, document: RemoteDocument, before: int) -> None:
        """Count a document as it is now; pages that were stored `before` are not."""
        stored, pages = document.stored, document.pages or document.stored
        with self._lock:
            self._counts[document.id] = max(0, stored - before), max(0, pages - before)
            done, known = zip(*self._counts.values(), strict=True)
            self._report(sum(done), sum(known))


def _read_only_one(answer: Any) -> RemoteDocument:
    [document] = answer["documents"]
    return RemoteDocument.from_json(document)
