"""Ctrl-C: a command says how far it came, and ends within two seconds, whatever it waits for."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any, TypeVar

import click

from pagevec.terminal import echo

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended, as shells have it."""

_SECONDS = 1.0  # that a command has to end by itself
_ENDING = f"{__name__}.ending"

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


class _Ending:
    """How a command ends at a signal: what it says, and with which exit code."""

    def __init__(self) -> None:
        self.report: Callable[[], str] = lambda: "interrupted"
        self.codes: Mapping[int, int] = {signal.SIGINT: INTERRUPTED}
        self.received: int = signal.SIGINT
        self._once = threading.Lock()

    def interrupt(self, number: int, _frame: FrameType | None) -> None:
        """Interrupt the main thread, as Python does by itself at Ctrl-C."""
        self.received = number
        raise KeyboardInterrupt

    def tell(self) -> int:
        """Print the report, once; return the exit code."""
        if self._once.acquire(blocking=False):
            echo(self.report(), err=True)
        return self.codes[self.received]

    def watch(self, signals: int, over: threading.Event) -> None:
        """End the process a moment after a signal, if the main thread has not done so."""
        while (seen := os.read(signals, 1)) and seen[0] not in self.codes:
            pass
        if not seen or over.wait(_SECONDS):
            return
        self.received = seen[0]
        try:
            code = self.tell()
            sys.stderr.flush()
        finally:
            os._exit(code)


def interruptible(command: AnyCommand) -> AnyCommand:
    """Let Ctrl-C end a command with code 130; `report_when_interrupted` says what it prints."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        ending = context.meta[_ENDING] = _Ending()
        try:
            with _watched(ending):
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(ending.tell())

    return run  # type: ignore[return-value]


def report_when_interrupted(
    report: Callable[[], str], codes: Mapping[int, int] | None = None
) -> None:
    """Say what the running command prints when a signal ends it.

    Args:
        report: makes that, in any thread, and completes what is worth to be kept.
        codes: exit codes by signal; default: 130 for SIGINT.
    """
    ending: _Ending = click.get_current_context().meta[_ENDING]
    ending.report = report
    if codes:
        ending.codes = codes
        for number in codes:
            signal.signal(number, ending.interrupt)


@contextmanager
def _watched(ending: _Ending) -> Iterator[None]:
    """Watch over signals from a thread, because the main thread may wait for something else."""
    is_main = threading.current_thread() is threading.main_thread()
    # A shell starts programs in the background so that they ignore Ctrl-C.
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    over, (signals, writing) = threading.Event(), os.pipe()
    if hasattr(os, "set_blocking"):  # Windows has it from Python 3.12, and does without
        os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing)  # written to at once, whatever the main thread does
    signal.signal(signal.SIGINT, ending.interrupt)
    threading.Thread(target=ending.watch, args=(signals, over), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        raise  # still watched: threads that wait for answers would hold up the end of the process
    except BaseException:
        over.set()
        raise
    else:
        over.set()
    finally:
        signal.set_wakeup_fd(former)
        os.close(writing)
