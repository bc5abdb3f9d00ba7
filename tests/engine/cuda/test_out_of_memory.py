"""Memory that ran out is tried again with less; only a lost device ends the engine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from benchmarks.emulated_cuda import CUDA, EmulatedCuda, emulated_cuda

from engine.hash_backend import HashBackend, Words
from pagevec.engine.backends.base import BatchHints
from pagevec.engine.backends.device import TorchDevice
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import EngineFailed, InternalError, OutOfMemory
from pagevec.types import MultiVector

WORDS = [f"word{number} of a text" for number in range(24)]
OUT_OF_MEMORY = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "driver": torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"),
    "cuda driver api": RuntimeError("CUDA driver error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasGemmEx(`"),
    "cuBLAS handle": RuntimeError(
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    ),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "host": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    "C++": RuntimeError("std::bad_alloc"),
}
ILLEGAL = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class EmulatedDevice(TorchDevice):
    """Looks at the emulated device from the engine's own thread."""

    def __init__(self, cuda: EmulatedCuda) -> None:
        super().__init__(CUDA)
        self._cuda = cuda

    def is_fatal(self, error: BaseException) -> bool:
        with self._cuda:
            return super().is_fatal(error)


class Failing(HashBackend):
    """Has `look` see each batch first, which may raise."""

    def __init__(self, look: Callable[[Sequence[Words]], None], device: TorchDevice) -> None:
        self._look = look
        self.hints = BatchHints(device=device, batch_tokens=256)

    def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
        self._look(batch)
        return super().forward(batch)


@contextmanager
def serve(look: Callable[[Sequence[Words]], None]) -> Iterator[LocalEmbedder]:
    """Run an engine whose warm-up is not disturbed."""
    ready: list[bool] = []
    with emulated_cuda() as cuda:
        backend = Failing(lambda batch: look(batch) if ready else None, EmulatedDevice(cuda))
        embedder = LocalEmbedder(lambda: backend)
        embedder.wait_until_ready()
        ready.append(True)
        yield embedder
        embedder.close()


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_each_form_halves_the_batch(error: Exception) -> None:
    """Every text is answered with its own vectors, and the budget of later batches is smaller."""
    failed: list[int] = []

    def look(batch: Sequence[Words]) -> None:
        if len(batch) > 6:
            failed.append(len(batch))
            raise error

    with serve(look) as embedder:
        before = embedder.health().batch_tokens
        vectors = embedder.embed_texts(WORDS).result(30).vectors
        assert failed
        assert embedder.health().batch_tokens < before
        assert embedder.health().state == "ready"
    right = HashBackend()
    for text, ours in zip(WORDS, vectors, strict=True):
        assert (ours == right.forward(right.prepare_texts([text]))[0]).all()


def test_one_input_that_never_fits() -> None:
    """It alone is refused; what came with it is answered."""

    def look(batch: Sequence[Words]) -> None:
        if any(len(one) > 50 for one in batch):
            raise OUT_OF_MEMORY["driver"]

    with serve(look) as embedder:
        with pytest.raises(OutOfMemory, match="this input alone"):
            embedder.embed_texts(["x " * 60]).result(30)
        assert len(embedder.embed_texts(WORDS).result(30).vectors) == len(WORDS)


def test_a_lost_device_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error that stays, every request is told so, and the engine has failed."""

    def fail(*_: Any, **__: Any) -> Any:
        raise ILLEGAL

    with serve(fail) as embedder:
        monkeypatch.setattr(torch, "ones", fail)  # nothing works any more
        with pytest.raises(EngineFailed):
            embedder.embed_texts(WORDS).result(30)
        assert embedder.failed.wait(10)
        assert embedder.health().state == "failed"


def test_an_error_that_passes_is_its_batch_s_own() -> None:
    """An error of one input fails that one; the device works, so the engine goes on."""

    def look(batch: Sequence[Words]) -> None:
        if any(b"bad" in one for one in batch):
            raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    with serve(look) as embedder:
        with pytest.raises(InternalError):
            embedder.embed_texts(["good", "bad"]).result(30)
        assert embedder.health().state == "ready"
        assert len(embedder.embed_texts(["good"]).result(30).vectors) == 1


def test_a_device_of_the_cpu_is_never_lost() -> None:
    """Nothing that a CPU raises spoils it."""
    assert not TorchDevice(torch.device("cpu")).is_fatal(ILLEGAL)
