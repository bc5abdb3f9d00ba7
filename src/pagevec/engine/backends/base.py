"""The `Backend` protocol: what runs a model on a batch. docs/backends.md shows how to write one."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import psutil

from pagevec.engine.api import Memory
from pagevec.images import EncodedImage
from pagevec.machine import peak_memory
from pagevec.types import ModelInfo, MultiVector


class Prepared(Protocol):
    """One input, ready for `Backend.forward`; otherwise opaque to the engine."""

    @property
    def tokens(self) -> int:
        """Length of its sequence, visual and text tokens: what it costs in a batch."""
        ...


P = TypeVar("P", bound=Prepared)


class Backend(Protocol[P]):
    """Prepares inputs and runs a model on batches of them.

    The engine adds the queue, batches within a token budget, admission, and halving when memory
    runs out. All methods but `forward` are called from several threads at once, and `forward` too
    where `hints.threads` is above 1.

    A backend may also have an attribute `hints: BatchHints`, and a method
    `tokenize(text: str, prepared: P) -> Sequence[Token]` that returns the token behind each vector
    of a text. Without the latter, callers cannot ask for tokens.
    """

    def info(self) -> ModelInfo:
        """Return what users are told of the model; `model` and `dim` are required."""
        ...

    def prepare_texts(self, texts: Sequence[str]) -> Sequence[P]:
        """Prepare texts, one `Prepared` for each.

        Raises:
            InvalidText: the model cannot take a text; with its `index`.
            TextTooLong: a text exceeds the model's context; with its `index`.
        """
        ...

    def prepare_page(self, image: EncodedImage) -> P:
        """Decode and prepare a page image.

        Raises:
            InvalidImage: its pixels cannot be decoded completely.
        """
        ...

    def page_tokens(self, width: int, height: int) -> int:
        """Return the `tokens` of a page of this size in pixels, before it is prepared."""
        ...

    def forward(self, batch: list[P]) -> list[MultiVector]:
        """Embed a batch of texts, or of pages; the engine never mixes them.

        Returns:
            For each input, in order, float32 (vectors, dim) with rows of unit length.

        Raises:
            MemoryError: the batch does not fit; the engine tries its halves. Other errors count as
                such where `hints.device` says so.
        """
        ...


METHODS = ("info", "prepare_texts", "prepare_page", "page_tokens", "forward")
"""What an object must offer to be a `Backend`."""


class Device:
    """What computes the batches, as far as the engine needs to know: by default this process."""

    def measure_memory(self) -> Memory:
        """Return the memory in use, in bytes."""
        process = psutil.Process().memory_info()
        return Memory(allocated=process.rss, reserved=process.vms, peak=peak_memory())

    def free_memory(self) -> None:
        """Release memory that nothing uses; called only after it ran out."""
        gc.collect()

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether `error` means that the memory did not suffice."""
        # The errors of torch and CuPy have this name; neither need be installed.
        return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"

    def is_fatal(self, error: BaseException) -> bool:
        """Return whether every batch after `error` will fail too."""
        return False

    def share_cores(self, threads: int) -> None:
        """Let this thread use its share of the cores, as one of `threads` that compute."""


@dataclass(frozen=True)
class BatchHints:
    """How the engine should form and run batches for a backend.

    Attributes:
        padded: whether inputs are padded to the longest of their batch, so that each costs as much.
        batch_tokens: tokens of one batch, unless PAGEVEC_BATCH_TOKENS is set.
        threads: batches that run at the same time, unless PAGEVEC_MODEL_THREADS is set. Where it
            is above 1, a batch of queries may run beside so many of pages.
        quadratic_crossover: sequence length at which attention, quadratic, costs as much as
            everything that is linear in the tokens: 4 x hidden size + 3 x intermediate size for a
            gated transformer layer.
        device: what computes.
        load_seconds: duration of each stage of loading, which `health()` reports.
    """

    padded: bool = False
    batch_tokens: int = 4096
    threads: int = 1
    quadratic_crossover: float = 32_768.0
    device: Device = field(default_factory=Device)
    load_seconds: Mapping[str, float] = field(default_factory=dict)


def read_hints(backend: Backend[Any]) -> BatchHints:
    """Return the hints of `backend`, or the defaults where it has none."""
    hints: BatchHints = getattr(backend, "hints", BatchHints())
    return hints
