"""What the two backends over torch share: their device, their batch hints, and their results."""

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from pagevec.engine.api import Memory
from pagevec.engine.backends.base import BatchHints, Device
from pagevec.engine.models.loader import LoadedModel
from pagevec.errors import InternalError
from pagevec.machine import usable_cores
from pagevec.types import MultiVector

CORES = min(torch.get_num_threads(), usable_cores())
"""Cores that this process may use: OMP_NUM_THREADS, which Ray sets, limits them, too."""

_BATCH_TOKENS_ON_CPU = 1024  # about one page: on a CPU caches decide, not launches
_BATCH_TOKENS_ON_ACCELERATOR = 16_384
# Two batches on one core each are faster than one batch on two, whose threads wait for each other
# after every step; a single page takes longer. Transformers' own forward is not thread-safe.
_BATCHES_AT_ONCE_ON_CPU = 4

# Only the allocators of torch raise an error of their own; its CPU allocator, the CUDA driver,
# cuBLAS (also when it makes a handle) and cuDNN say it in words.
_OUT_OF_MEMORY = re.compile(
    r"out.of.memory|not enough memory|(can't|cannot) allocate memory|bad_alloc|ALLOC(ATION)?_FAILED"
    r"|NOT_INITIALIZED when calling .cu\w+Create",
    re.IGNORECASE,
)

T = TypeVar("T")


class TorchDevice(Device):
    """A device of torch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def measure_memory(self) -> Memory:
        """Return what CUDA's allocator holds, and for other devices the memory of the process."""
        if self._device.type != "cuda":
            return super().measure_memory()
        return Memory(
            allocated=torch.cuda.memory_allocated(self._device),
            reserved=torch.cuda.memory_reserved(self._device),
            peak=torch.cuda.max_memory_allocated(self._device),
        )

    def free_memory(self) -> None:
        """Release what no tensor uses."""
        super().free_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether `error` means that the memory did not suffice."""
        said = isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))
        return bool(said) or super().is_out_of_memory(error)

    def is_fatal(self, error: BaseException) -> bool:
        """Return whether the accelerator is lost: after `error` it does not even add two numbers.

        CUDA keeps an error that spoilt its context (an illegal access, a lost device), and every
        later call fails with it. Other errors pass.
        """
        if self._device.type == "cpu" or not isinstance(error, RuntimeError):
            return False
        return not self.is_out_of_memory(error) and not self._works()

    def _works(self) -> bool:
        try:
            return torch.ones(1, device=self._device).add_(1).item() == 2
        except Exception as error:
            return self.is_out_of_memory(error)

    def share_cores(self, threads: int) -> None:
        """Let torch use 1 / `threads` of the cores in this thread, at least one."""
        torch.set_num_threads(max(1, CORES // threads))


def choose_hints(loaded: LoadedModel, *, packed: bool) -> BatchHints:
    """Return the hints that suit a forward pass of the model and its device."""
    text = loaded.model.config.get_text_config()
    on_cpu = loaded.device.type == "cpu"
    return BatchHints(
        padded=not packed,
        batch_tokens=_BATCH_TOKENS_ON_CPU if on_cpu else _BATCH_TOKENS_ON_ACCELERATOR,
        threads=min(_BATCHES_AT_ONCE_ON_CPU, CORES) if on_cpu and packed else 1,
        quadratic_crossover=4 * text.hidden_size + 3 * text.intermediate_size,
        device=TorchDevice(loaded.device),
        load_seconds=loaded.seconds,
    )


def require_kind(batch: Sequence[object], kind: type[T]) -> list[T]:
    """Return `batch`, all of whose inputs are of `kind`.

    Raises:
        InternalError: an input is of another kind.
    """
    same = [one for one in batch if isinstance(one, kind)]
    if len(same) != len(batch):
        kinds = ", ".join(sorted({type(one).__name__ for one in batch}))
        raise InternalError(f"a batch mixes kinds: {kinds}; expected {kind.__name__} only")
    return same


def split_rows(vectors: torch.Tensor, lengths: Sequence[int]) -> list[MultiVector]:
    """Split the vectors of a batch into one multi-vector for each input.

    Args:
        vectors: (sum of lengths, dim), on any device, of any length and dtype.
        lengths: tokens of each input.

    Returns:
        For each input, float32 (tokens, dim) with rows of unit length.

    Raises:
        InternalError: not all numbers are finite.
    """
    unit = torch.nn.functional.normalize(vectors.to(torch.float32), dim=-1).cpu().numpy()
    if not np.isfinite(unit).all():
        raise InternalError("the model returned numbers that are not finite")
    ends = np.cumsum(lengths)[:-1]
    return [np.ascontiguousarray(one) for one in np.split(unit, ends)]
