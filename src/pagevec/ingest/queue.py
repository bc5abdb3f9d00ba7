"""Uploads on their way into a store, while a service runs: ingested in turn, observed, stopped.

The worker and its ledger do the ingesting, so a service that is killed at any moment goes on after
its next start: an upload waits until its document is complete, or has failed for good.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pagevec.errors import PagevecError, QueueFull
from pagevec.ingest.page import ReadLimits, ReadOptions
from pagevec.ingest.uploads import Upload, Uploads
from pagevec.ingest.worker import Outcome, Worker
from pagevec.stores.base import Store
from pagevec.types import Model

log = logging.getLogger(__name__)

_THREADS = 2  # documents at once: one is read while another is embedded
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0  # after the model or the store did not answer
_STOP_SECONDS = 90.0  # for a page to be done that was begun; see ReadLimits.page_seconds
_RATE_SECONDS = 60.0


@dataclass
class Job:
    """An upload that is being ingested now.

    Attributes:
        upload: what.
        total: pages to be done now; None until that is known.
        stopped: set to begin no further page.
        ended: set once nothing of it runs any more.
    """

    upload: Upload
    total: int | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class IngestionQueue:
    """Ingests the uploads of one store, in the order in which they came, in threads of its own.

    Args:
        store: takes the pages.
        model: embeds them.
        uploads: what is to be ingested.
        max_pages: of one document.
    """

    def __init__(self, store: Store, model: Model, uploads: Uploads, max_pages: int) -> None:
        self._store = store
        self._uploads = uploads
        options = ReadOptions(limits=ReadLimits(pages=max_pages))
        self._worker = Worker(store, model, options=options, name=uploads.worker)
        self._jobs: dict[str, Job] = {}
        self._faults: dict[str, str] = {}  # why an upload is tried again
        self._later: dict[Upload, float] = {}
        self._held: set[str] = set()
        self._pause = _FIRST_PAUSE
        self._progress: deque[tuple[float, int]] = deque()
        self.pages_done = 0
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"pagevec-ingest-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def notice(self) -> None:
        """Look for new uploads now; jobs of files that were replaced by a new one are stopped."""
        with self._changed:
            for job in self._jobs.values():
                if self._uploads.waiting_for(job.upload.name) != job.upload:
                    job.stopped.set()
            self._changed.notify_all()

    def job(self, name: str) -> Job | None:
        """Return the job of the document `name`, if it is being ingested now."""
        return self._jobs.get(name)

    def fault(self, name: str) -> str | None:
        """Return why the document `name` could not be ingested yet and is tried again."""
        return self._faults.get(name)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Let no job of the document `name` begin during the block, nor another such block.

        It may use `stop`.
        """
        with self._changed:
            self._changed.wait_for(lambda: name not in self._held)
            self._held.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(name)
                self._changed.notify_all()

    def stop(self, name: str) -> None:
        """Stop the job of the document `name`, if there is one, and wait for its end.

        Raises:
            QueueFull: a page of it takes longer than this waits.
        """
        with self._changed:  # a job is begun in one step with the look for what waits
            job = self._jobs.get(name)
        if job is not None:
            job.stopped.set()
            if not job.ended.wait(_STOP_SECONDS):
                raise QueueFull(f"{name} is still being ingested: try again later")
        self._faults.pop(name, None)

    def pages_per_second(self) -> float | None:
        """Return the pages that were done in each second of the last minute; None if none was."""
        with self._changed:
            self._forget_old()
            if not self._progress:
                return None
            since = time.monotonic() - self._progress[0][0]
            return sum(pages for _, pages in self._progress) / max(1.0, since)

    def close(self) -> None:
        """Begin no further page; what waits goes on with the next service."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in list(self._jobs.values()):
            job.stopped.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                outcome = self._ingest(job)
                is_over = outcome is not None and not outcome.is_temporary
                if is_over and not job.stopped.is_set():
                    self._finish(job.upload)
                elif not job.stopped.is_set():
                    said = outcome.error if outcome and outcome.error else "it was not ingested"
                    self._try_again(job.upload, said)
            except Exception as error:  # this upload waits; others go on
                log.error("%s: %s", job.upload.name, error)
                said = error.message if isinstance(error, PagevecError) else repr(error)
                self._try_again(job.upload, said)
            finally:
                with self._changed:
                    del self._jobs[job.upload.name]
                    job.ended.set()
                    self._changed.notify_all()

    def _next(self) -> Job | None:
        """Wait for the next upload and return its job; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                at_work = {job.upload.content_hash for job in self._jobs.values()}
                taken = {*self._jobs, *self._held, *at_work}
                now = time.monotonic()
                waiting = self._uploads.waiting()
                self._later = {one: when for one, when in self._later.items() if one in waiting}
                for upload in waiting:
                    # The same content is embedded once: its twin waits for the pages.
                    is_free = not {upload.name, upload.content_hash} & taken
                    if is_free and self._later.get(upload, 0.0) <= now:
                        job = self._jobs[upload.name] = Job(upload)
                        return job
                self._changed.wait(1.0 if self._later else None)
        return None

    def _ingest(self, job: Job) -> Outcome | None:
        counted = 0

        def note(done: int, total: int) -> None:
            nonlocal counted
            job.total = total
            with self._changed:
                self._progress.append((time.monotonic(), done - counted))
                self.pages_done += done - counted
                self._forget_old()
            counted = done

        source = self._uploads.source(job.upload)
        outcomes = self._worker.ingest([source], note, stopped=job.stopped)
        return outcomes[0] if outcomes else None

    def _finish(self, upload: Upload) -> None:
        record = self._store.ledger.record(upload.name)
        if record is not None and not record.content_hash:
            # Of a document that could not be opened: its file is kept until it is removed.
            self._store.ledger.write(replace(record, content_hash=upload.content_hash))
        self._uploads.finish(upload)
        with self._changed:
            self._faults.pop(upload.name, None)
            self._later.pop(upload, None)
            self._pause = _FIRST_PAUSE

    def _try_again(self, upload: Upload, why: str) -> None:
        with self._changed:
            self._faults[upload.name] = why
            self._later[upload] = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _forget_old(self) -> None:
        while self._progress and self._progress[0][0] < time.monotonic() - _RATE_SECONDS:
            self._progress.popleft()
