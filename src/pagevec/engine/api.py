"""The seam between the HTTP service and whatever embeds: a handful of methods, no more."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pagevec.images import EncodedImage
from pagevec.types import ModelInfo, MultiVector

State = Literal["loading", "ready", "failed", "draining"]


@dataclass(frozen=True)
class Memory:
    """Bytes of the device that computes: CUDA's allocator, or this process on a CPU."""

    allocated: int
    reserved: int
    peak: int


@dataclass(frozen=True)
class Health:
    """A snapshot: the state, what waits, the memory, seconds that the device has computed.

    Attributes:
        start_seconds: what each stage of the start took, such as reading the weights.
    """

    state: State
    queued_inputs: int
    queued_tokens: int
    batch_tokens: int
    memory: Memory
    busy_seconds: float
    start_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings:
    """Seconds of one request: summed over its inputs (prepare), longest wait, its batches."""

    prepare: float = 0.0
    queue: float = 0.0
    forward: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """The answer to one request: one multi-vector for each input, in the inputs' order.

    Attributes:
        vectors: float32 arrays (vectors, dim), ragged.
        tokens: sequence tokens (visual and text) that were computed.
        batch_sizes: for each input, how many inputs shared its forward pass.
    """

    vectors: list[MultiVector]
    tokens: int = 0
    timings: Timings = Timings()
    batch_sizes: tuple[int, ...] = ()


class Embedder(Protocol):
    """Turns texts or page images into multi-vectors. All methods may be called from any thread."""

    @property
    def info(self) -> ModelInfo:
        """What answers. Raises NotReady while the model is being loaded."""
        ...

    def embed(
        self, inputs: Sequence[str] | Sequence[EncodedImage], pool_factor: int = 1
    ) -> "Future[Embedded]":
        """Embed inputs of one kind: all of them or, with an error, none.

        A cancelled future leaves the queue. `pool_factor` above 1 merges similar vectors
        (token pooling), to about 1 / `pool_factor` of them.

        The future raises: NotReady, Draining, QueueFull, TooMuchWork, or the error of the one
        input that is to blame, with its index.
        """
        ...

    def health(self) -> Health:
        """Return a snapshot, without waiting for the model."""
        ...

    def close(self) -> None:
        """Take nothing new, finish what is there, release the model."""
        ...
