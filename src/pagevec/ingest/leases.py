"""Leases: which documents a worker is ingesting, so that several workers can share a store."""

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from pagevec.errors import StoreError
from pagevec.stores.base import Ledger

# A killed worker gives up its documents after this long.
LEASE_SECONDS = 15.0
_RENEWALS = 3  # per lease: two of them may be late


class Leases:
    """The leases of one worker, renewed by a thread for as long as this context is entered.

    Args:
        ledger: where leases are written.
        seconds: how long a lease lasts unless it is renewed.
    """

    def __init__(self, ledger: Ledger, seconds: float = LEASE_SECONDS) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._held: set[str] = set()
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
        is_mine = self._ledger.lease(document, self._worker, self._seconds)
        if not is_mine:
            yield False
            return
        self._held.add(document)
        try:
            yield True
        finally:
            self._held.discard(document)
            self._ledger.release(document, self._worker)

    def _renew(self) -> None:
        while not self._over.wait(self._seconds / _RENEWALS):
            for document in list(self._held):
                with suppress(StoreError):  # a store that stumbles: the next renewal is soon
                    self._ledger.lease(document, self._worker, self._seconds)
