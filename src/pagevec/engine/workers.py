"""Threads that prepare inputs and pool vectors: in fair turns, and within a budget of bytes."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pagevec.engine.requests import Request
from pagevec.engine.scheduler import FairLine, Ticket

# A task that takes longer leaves a thread to shorter ones.
_LONG_SECONDS = 0.5
# Nice value of the threads that work on pages: a third of the share of a thread at 0, where cores
# are scarce, so that they never starve the threads that run the model and answer.
_NICENESS = 5


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of a request's work.

    Attributes:
        request: fails if `run` raises, and is not worked for once it is abandoned.
        run: does the work.
        seconds: how long it will take, about.
        bytes: what it holds at its peak, in bytes, at most.
        index: position of its input in the request, if it has one only.
    """

    request: Request
    run: Callable[[], None]
    seconds: float
    bytes: int = 0
    index: int | None = None

    @property
    def is_long(self) -> bool:
        """Whether it must leave a thread to shorter tasks."""
        return self.seconds > _LONG_SECONDS


class WorkingBytes:
    """Bytes that the tasks of several groups of workers may hold at once."""

    def __init__(self, limit: int) -> None:
        """Begin with all bytes free."""
        self.lock = threading.Lock()
        self.limit = limit
        self.free = limit
        self._groups: list[threading.Condition] = []

    def new_group(self) -> threading.Condition:
        """Return a condition over `lock`, notified whenever bytes become free."""
        self._groups.append(threading.Condition(self.lock))
        return self._groups[-1]

    def share_of(self, task: Task) -> int:
        """Return what `task` is charged: never more than there is, so that it can run alone."""
        return min(task.bytes, self.limit)

    def release(self, task: Task) -> None:
        """Give back what `task` was charged; the caller holds `lock`."""
        if task.bytes:
            self.free += self.share_of(task)
            for group in self._groups:
                group.notify()


class Workers:
    """Threads for one kind of task. Callers take turns, by the seconds of their tasks.

    Beside the threads there is a spare one: while long tasks run, it does one short task at a time.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        working_bytes: WorkingBytes,
        *,
        begin: Callable[[], None],
        stop: Callable[[BaseException], None],
        has_room: Callable[[Task], bool] = lambda task: True,
        nice: bool = False,
        spare: bool = True,
    ) -> None:
        """Start the threads.

        Args:
            name: of the threads.
            threads: tasks at the same time.
            working_bytes: what tasks hold is charged to it.
            begin: called in each thread before its first task.
            stop: called if a thread ends by an error, after which its tasks are not done any more.
            has_room: whether there is room for what a task will make; call `wake` when there is.
            nice: whether the threads give way to others where cores are scarce.
            spare: whether there is a spare thread.
        """
        self._threads = threads
        self._working_bytes = working_bytes
        self._changed = working_bytes.new_group()
        self._has_room = has_room
        self._line: FairLine[Task] = FairLine()
        self._busy = self._long = 0
        self._closed = False
        self._running = [
            threading.Thread(target=self._run, args=(begin, stop, nice), name=name, daemon=True)
            for _ in range(threads + spare)
        ]
        for thread in self._running:
            thread.start()

    def submit(self, task: Task) -> None:
        """Put `task` in line."""
        with self._changed:
            self._line.add(task.request.caller, task.seconds, task)
            self._changed.notify()

    def forget(self, request: Request) -> None:
        """Drop the tasks of a request that nobody waits for, and what they hold."""
        with self._changed:
            self._line.drop(lambda task: task.request is request)
            self._wake_another()

    def wake(self) -> None:
        """Look again whether there is room."""
        with self._changed:
            self._wake_another()

    def close(self) -> None:
        """Do what is in line, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._running:
            thread.join()

    def _run(
        self, begin: Callable[[], None], stop: Callable[[BaseException], None], nice: bool
    ) -> None:
        try:
            begin()
            if nice:
                _be_nice()
            while task := self._take():
                try:
                    _do(task)
                finally:
                    self._end(task)
                del task  # the request must not be kept until the next one comes
        except BaseException as error:
            stop(error)

    def _take(self) -> Task | None:
        """Wait for the next task; None when there are no more."""
        with self._changed:
            while not (ticket := self._next()):
                if self._closed and not len(self._line):
                    self._changed.notify_all()
                    return None
                self._changed.wait()
            self._line.take([ticket])
            task = ticket.entry
            self._busy += 1
            self._long += task.is_long
            self._working_bytes.free -= self._working_bytes.share_of(task)
            self._wake_another()
            return task

    def _next(self) -> Ticket[Task] | None:
        """Return the first task in turn that may begin now.

        One whose bytes are not free yet is waited for: others would take them for ever.
        """
        for ticket in self._line.heads():
            task = ticket.entry
            if self._has_thread(task) and self._has_room(task):
                fits = self._working_bytes.share_of(task) <= self._working_bytes.free
                return ticket if fits else None
        return None

    def _has_thread(self, task: Task) -> bool:
        spare_is_free = self._busy == self._threads and self._long > 0 and not task.is_long
        return self._busy < self._threads or spare_is_free

    def _end(self, task: Task) -> None:
        with self._changed:
            self._busy -= 1
            self._long -= task.is_long
            self._working_bytes.release(task)
            self._wake_another()

    def _wake_another(self) -> None:
        """Let another thread look for a task, or for the end; the caller holds the lock."""
        if len(self._line) or self._closed:
            self._changed.notify()


def _do(task: Task) -> None:
    if task.request.abandoned:
        return
    try:
        task.run()
    except BaseException as error:
        task.request.fail(error, task.index)


def _be_nice() -> None:
    if sys.platform == "linux":  # elsewhere this would slow down the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
