"""Memory of the device that computes: how much is used, and what running out of it looks like."""

import gc
import resource

import psutil
import torch

from pagevec.engine.api import Memory


def memory_of(device: torch.device) -> Memory:
    """Return the bytes that CUDA's allocator holds, or on other devices those of this process."""
    if device.type == "cuda":
        return Memory(
            allocated=torch.cuda.memory_allocated(device),
            reserved=torch.cuda.memory_reserved(device),
            peak=torch.cuda.max_memory_allocated(device),
        )
    process = psutil.Process().memory_info()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return Memory(allocated=process.rss, reserved=process.vms, peak=peak)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether `error` means that the device's memory did not suffice.

    CUDA raises torch.OutOfMemoryError; the CPU allocator a plain RuntimeError with this text.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> None:
    """Give back what no tensor uses: only after running out, never in the hot path."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
