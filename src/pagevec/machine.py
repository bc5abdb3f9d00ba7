"""What this process may use of the machine, and what it gives back."""

import ctypes
import gc
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_V1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"
_OPEN_MAX = 10_240  # descriptors that macOS allows at most where it calls its limit infinite


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many threads of this process can run at the same time.

    That is the least of its affinity and of the CPU quotas of its control groups (v1 and v2), as
    containers, Kubernetes and systemd set them; part of a core counts as one.

    Args:
        root: where `proc` and `sys` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas(root))]))


@cache
def thread_pool(name: str, count: int | None = None) -> ThreadPoolExecutor:
    """Return this process's threads for one kind of work, one for each core that it may use.

    Args:
        name: of the kind of work.
        count: how many threads there are instead; always the same for a name.
    """
    return ThreadPoolExecutor(count or usable_cores(), name)


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=thread_pool.cache_clear)


def raise_descriptor_limit() -> float:
    """Raise the limit on this process's file descriptors as far as it may; return the limit."""
    if resource is None:  # sockets are no descriptors there
        return math.inf
    soft, hard = map(_as_number, resource.getrlimit(resource.RLIMIT_NOFILE))
    for wanted in (hard, min(hard, _OPEN_MAX)):
        if wanted <= soft:
            break
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (_as_limit(wanted), _as_limit(hard)))
            return wanted
    return soft


def peak_memory() -> int:
    """Return the most memory, in bytes, that this process has had so far."""
    if resource is None:
        import psutil

        used = psutil.Process().memory_info()
        return int(getattr(used, "peak_wset", used.rss))  # `peak_wset`: Windows' peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def settle_memory() -> None:
    """Take what exists now (libraries, a model) to stay, once a service is ready.

    Collecting garbage looks only at what came later, from then on: milliseconds, not a fifth of a
    second in which nobody is answered.
    """
    gc.collect()
    gc.freeze()


def release_freed_memory() -> None:
    """Give back to the system what was freed.

    Cycles of objects wait for Python's collector, which comes seldom, with all that they refer to;
    and glibc keeps freed pieces between pieces in use. After an hour of requests of all sizes the
    process would hold several times what it needs.
    """
    gc.collect()
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return the function of glibc; other C libraries have none."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return trim


def _as_number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _as_limit(number: float) -> int:
    return resource.RLIM_INFINITY if number == math.inf else int(number)


def _quotas(root: Path) -> Iterator[float]:
    """Yield each quota in cores: of the process's groups and of those above them."""
    groups = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Inside a container the path may be the host's, and the mount begins at its end.
        below = Path(path.lstrip("/"))
        for mount in (groups / controllers, groups / "cpu") if controllers else (groups,):
            for group in (below, *below.parents):
                yield from _quota(mount / group)


def _quota(group: Path) -> Iterator[float]:
    words = _read(group / "cpu.max").split() or [_read(group / name).strip() for name in _V1]
    # "max" and, in v1, -1 mean that there is none.
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
