"""A constant load on a service: callers that ask again and again, and what they were answered."""

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Load:
    """What callers were answered so far; an error counts by its text."""

    pause: float  # seconds between two calls of one caller
    answers: Counter[object] = field(default_factory=Counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, call: Callable[[], object]) -> None:
        """Call until the load ends."""
        while not self._ended.is_set():
            try:
                answer = call()
            except Exception as error:
                answer = repr(error)
            with self._changed:
                self.answers[answer] += 1
                self._changed.notify_all()
            self._ended.wait(self.pause)

    def wait_for(self, more: int, seconds: float = 60) -> None:
        """Wait until so many more answers have come."""
        with self._changed:
            goal = self.answers.total() + more
            assert self._changed.wait_for(lambda: self.answers.total() >= goal, seconds)

    def end(self) -> None:
        """Let every caller finish the call that it is in."""
        self._ended.set()


@contextmanager
def loaded(*callers: Callable[[], object], pause: float = 0.4) -> Iterator[Load]:
    """Ask with all `callers` at once, each in a thread, until the end of the block.

    The pause leaves a machine of two cores the time to start a process meanwhile.
    """
    load = Load(pause)
    threads = [threading.Thread(target=load.ask, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.end()
        for thread in threads:
            thread.join()


@contextmanager
def collecting_garbage() -> Iterator[None]:
    """Collect garbage all the time, and let another thread run then, wherever Python allows it."""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()

    def pause(phase: str, _: object) -> None:
        if phase == "start":
            time.sleep(0)

    gc.callbacks.append(pause)
    gc.set_threshold(20)
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        gc.callbacks.remove(pause)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
