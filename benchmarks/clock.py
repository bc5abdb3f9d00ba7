"""How long work takes."""

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """Do `work` once; return the seconds it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def times(work: Callable[[], object], seconds: float) -> list[float]:
    """Do `work` for `seconds`, once at least; return the seconds that each time took."""
    end = time.perf_counter() + seconds
    taken = [seconds_of(work)]
    while time.perf_counter() < end:
        taken.append(seconds_of(work))
    return taken
