"""A backend whose device is lost for good when it gets a certain text; for `--backend`."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from engine.hash_backend import HashBackend, Words
from pagevec.engine.backends.base import BatchHints, Device
from pagevec.types import MultiVector

LOST = b"device-is-lost"
# Names a file that exists once the device was lost: a process that starts later finds a sound one.
MARK = "LOST_ONCE"


class DeviceLost(RuntimeError):
    """What every call raises after the device was lost."""


class FragileDevice(Device):
    """Knows the error that does not pass."""

    def is_fatal(self, error: BaseException) -> bool:
        return isinstance(error, DeviceLost)


class LostDevice(HashBackend):
    """The hash backend, on a device that one text destroys, once."""

    def __init__(self) -> None:
        self.hints = BatchHints(device=FragileDevice(), threads=2)
        self._mark = Path(os.environ[MARK]) if MARK in os.environ else None
        self._sound_for_ever = self._mark is not None and self._mark.exists()
        self._lost = False

    def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
        if not self._sound_for_ever and any(LOST in words for words in batch):
            self._lost = True
            if self._mark is not None:
                self._mark.touch()
        if any(b"slow" in words for words in batch):
            time.sleep(0.5)
        if self._lost:
            raise DeviceLost("the device has fallen off the bus")
        return super().forward(batch)


class HangsAfterwards(LostDevice):
    """Batches that are on a device when it is lost never come back."""

    def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
        fatal = any(LOST in words for words in batch)
        if not fatal and any(b"hangs" in words for words in batch):
            threading.Event().wait()
        return super().forward(batch)


class EndsItsThread(LostDevice):
    """Instead of raising an error, the model's thread is asked to end."""

    def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
        try:
            return super().forward(batch)
        except DeviceLost:
            raise SystemExit from None
