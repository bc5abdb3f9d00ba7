"""What the figures were measured on, and how long work takes."""

import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

from pagevec.machine import usable_cores


def describe_machine() -> dict[str, str | int]:
    """Return processor, usable cores, memory and versions; never the machine's name."""
    return {
        "cpu": _processor(),
        "cores": usable_cores(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def time_once(work: Callable[[], object]) -> float:
    """Run `work` once and return the seconds it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def time_for(seconds: float, work: Callable[[], object]) -> list[float]:
    """Repeat `work` for `seconds`, at least once, and return the seconds of each run."""
    end = time.perf_counter() + seconds
    taken = [time_once(work)]
    while time.perf_counter() < end:
        taken.append(time_once(work))
    return taken


def summarize_latency(seconds: Sequence[float]) -> dict[str, float]:
    """Return the number of requests and the 50th, 95th and 99th percentile, in milliseconds."""
    p50, p95, p99 = (np.percentile(seconds, [50, 95, 99]) * 1000).tolist()
    return {"requests": len(seconds), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
