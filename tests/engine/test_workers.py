"""Threads that prepare and pool: turns, bytes, long tasks, and what happens when one ends."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from pagevec.engine.requests import Request
from pagevec.engine.workers import Task, Workers, WorkingBytes


@contextmanager
def working(threads: int, limit: int = 100, **options: Any) -> Iterator[Workers]:
    """Yield workers, which end with the block."""
    none: dict[str, Callable[..., None]] = {"begin": lambda: None, "stop": pytest.fail}
    workers = Workers("test", threads, WorkingBytes(limit), **{**none, **options})
    yield workers
    workers.close()


def request(caller: str = "") -> Request:
    return Request(1, is_query=True, caller=caller)


class Held:
    """Tasks that hold bytes for a moment; notes the most at once, and who came when."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self.order: list[str] = []
        self._lock = threading.Lock()

    def task(self, caller: str, count: int, seconds: float = 0.001) -> Task:
        def run() -> None:
            with self._lock:
                self.now += count
                self.most = max(self.most, self.now)
                self.order.append(caller)
            time.sleep(seconds)
            with self._lock:
                self.now -= count

        return Task(request(caller), run, seconds, count)


def test_bytes_are_never_more_than_there_are() -> None:
    """Eight threads with tasks of all sizes stay within the budget, and all tasks are done."""
    held, sizes = Held(), np.random.default_rng(1)
    with working(8) as workers:
        for number in range(200):
            workers.submit(held.task(str(number % 5), int(sizes.integers(1, 101))))
    assert len(held.order) == 200
    assert 50 < held.most <= 100


def test_groups_share_the_bytes() -> None:
    """Decoding and pooling together stay within one budget."""
    held, shared = Held(), WorkingBytes(100)
    groups = [Workers("test", 2, shared, begin=lambda: None, stop=pytest.fail) for _ in range(3)]
    for number in range(60):
        groups[number % 3].submit(held.task("", 60))
    for group in groups:
        group.close()
    assert len(held.order) == 60
    assert held.most == 60


def test_what_needs_more_than_there_is_runs_alone() -> None:
    """A task that turns out larger than the budget waits for all of it, not for ever."""
    held = Held()
    with working(4) as workers:
        for count in (10, 10, 1000, 10, 10):
            workers.submit(held.task("", count))
    assert held.most == 1000
    assert len(held.order) == 5


def test_callers_take_turns() -> None:
    """One task of another caller goes next, whatever is in line."""
    held, gate = Held(), threading.Event()
    with working(1, spare=False) as workers:
        workers.submit(Task(request("heavy"), lambda: gate.wait(10) and None, 0.001))
        for _ in range(50):
            workers.submit(held.task("heavy", 1))
        workers.submit(held.task("light", 1))
        gate.set()
    assert held.order.index("light") <= 1


def test_long_tasks_leave_a_thread_to_short_ones() -> None:
    """While long tasks take all threads, a short one is done by the spare one."""
    gate, done = threading.Event(), threading.Event()
    with working(2) as workers:
        for _ in range(5):
            workers.submit(Task(request("long"), lambda: gate.wait(10) and None, 60.0))
        workers.submit(Task(request("short"), done.set, 0.01))
        assert done.wait(5)
        gate.set()


def test_who_has_no_room_keeps_nobody_waiting() -> None:
    """A caller whose pages wait for the model does not keep another one's from being prepared."""
    done, room = threading.Event(), threading.Event()
    with working(
        1, has_room=lambda task: task.request.caller == "light" or room.is_set()
    ) as workers:
        blocked = [Task(request("heavy"), lambda: None, 0.01) for _ in range(5)]
        for task in blocked:
            workers.submit(task)
        workers.submit(Task(request("light"), done.set, 0.01))
        assert done.wait(5)
        room.set()
        workers.wake()


def test_a_failing_task_fails_its_request_only() -> None:
    """The error names the input; the thread goes on with the next task."""
    asked, done = request(), threading.Event()

    def fail() -> None:
        raise SystemExit

    with working(1, spare=False) as workers:
        workers.submit(Task(asked, fail, 0.0, index=3))
        workers.submit(Task(request(), done.set, 0.0))
        assert done.wait(5)
    error = asked.future.exception()
    assert error is not None
    assert error.index == 3  # type: ignore[attr-defined]


def test_what_nobody_waits_for_is_dropped() -> None:
    """The tasks of a caller who left are neither done nor kept."""
    gate, done = threading.Event(), list[int]()
    left = request()
    with working(1, spare=False) as workers:
        workers.submit(Task(request(), lambda: gate.wait(10) and None, 0.0))
        for number in range(5):
            workers.submit(Task(left, lambda number=number: done.append(number), 0.0))  # type: ignore[misc]
        left.future.cancel()
        workers.forget(left)
        assert len(workers._line) <= 1
        gate.set()
    assert done == []


def test_the_end_does_not_wait_for_what_was_dropped() -> None:
    """Threads that wait for room end, too, when the last task in line is dropped meanwhile."""
    left = request()
    with working(2, has_room=lambda task: False) as workers:
        workers.submit(Task(left, lambda: None, 0.0))
        closing = threading.Thread(target=workers.close, daemon=True)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        workers.forget(left)
        closing.join(5)
        assert not closing.is_alive()


def test_a_thread_that_ends_is_no_secret() -> None:
    """Whatever ends a thread reaches `stop`, so that nobody waits for it for ever."""
    told = list[BaseException]()

    def fail() -> None:
        raise MemoryError("no more threads")

    with working(1, spare=False, begin=fail, stop=told.append):
        while not told:
            time.sleep(0.01)
    assert isinstance(told[0], MemoryError)
