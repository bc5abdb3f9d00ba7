"""How long work takes."""

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """Do `work` once; return the seconds it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
