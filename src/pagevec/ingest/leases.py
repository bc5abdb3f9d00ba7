"""Leases: which documents a worker is ingesting, so that several workers can share a store."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pagevec.ingest import LEASE_SECONDS
from pagevec.stores.base import Ledger

log = logging.getLogger(__name__)

_RENEWALS = 3  # per lease: two of them may be late
_RETRIES = 15  # per lease, while the store cannot be written


class Leases:
    """The leases of one worker, renewed by a thread for as long as this context is entered.

    A store that stumbles costs no lease: a renewal that failed is tried again until it succeeds.
    A lease that ended meanwhile, or that another worker took, is logged; the pages of a document
    that two workers embed are stored once all the same.

    Args:
        ledger: where leases are written.
        seconds: how long a lease lasts unless it is renewed.
        worker: name of the worker; None for one of its own. Leases of one name belong together,
            so no two workers that live at the same time may ingest a document under one name.
    """

    def __init__(
        self, ledger: Ledger, seconds: float = LEASE_SECONDS, worker: str | None = None
    ) -> None:
        self._ledger = ledger
        self._seconds = seconds
        own = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._worker = worker or own
        self._held: dict[str, _Lease] = {}
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="pagevec-leases", daemon=True)

    def __enter__(self) -> Self:
        self._renewing.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._renewing.join()

    @contextmanager
    def hold(self, document: str) -> Iterator[bool]:
        """Hold the lease of `document` for the block; yield False if another worker has it."""
        asked = time.monotonic()
        is_mine = self._ledger.lease(document, self._worker, self._seconds)
        if not is_mine:
            yield False
            return
        self._held[document] = _Lease(asked + self._seconds)
        try:
            yield True
        finally:
            del self._held[document]
            self._release(document)

    def _release(self, document: str) -> None:
        try:
            self._ledger.release(document, self._worker)
        except Exception as error:  # the document is done; the lease ends by itself
            log.warning("%r: its lease could not be released: %s", document, error)

    def _renew(self) -> None:
        times = _RENEWALS
        while not self._over.wait(self._seconds / times):
            renewed = [self._renew_one(*one) for one in list(self._held.items())]
            times = _RENEWALS if all(renewed) else _RETRIES

    def _renew_one(self, document: str, lease: "_Lease") -> bool:
        """Renew a lease, and return whether the store could be written."""
        asked = time.monotonic()
        try:
            is_mine = self._ledger.lease(document, self._worker, self._seconds)
        except Exception as error:
            if time.monotonic() < lease.ends:
                log.warning("%r: its lease could not be renewed yet: %s", document, error)
            else:
                lease.lose(document, f"the store could not be written in time: {error}")
            return False
        if is_mine:
            lease.ends, lease.is_lost = asked + self._seconds, False
        elif document in self._held:
            lease.lose(document, "another worker has taken it")
        if document not in self._held:  # released while it was renewed
            self._release(document)
        return True


@dataclass
class _Lease:
    """A lease that this worker holds.

    Attributes:
        ends: when it ends, by `time.monotonic`, unless it is renewed.
        is_lost: whether it has ended, which was logged.
    """

    ends: float
    is_lost: bool = False

    def lose(self, document: str, reason: str) -> None:
        if not self.is_lost:
            log.error("%r: its lease has ended, other workers may ingest it: %s", document, reason)
        self.is_lost = True
