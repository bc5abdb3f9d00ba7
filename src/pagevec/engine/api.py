"""The `Embedder` protocol: all that the HTTP service knows of the engine."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pagevec.images import EncodedImage
from pagevec.types import ModelInfo, MultiVector, Token

State = Literal["loading", "ready", "failed", "draining"]


@dataclass(frozen=True)
class Memory:
    """Memory in use, in bytes: of CUDA's allocator, or of this process on other devices.

    Attributes:
        allocated: held by tensors, or resident.
        reserved: held by the allocator, or virtual.
        peak: most that was allocated so far.
    """

    allocated: int
    reserved: int
    peak: int


@dataclass(frozen=True)
class Health:
    """A snapshot of the engine.

    Attributes:
        state: whether the model is loading, ready, failed or draining.
        queued_inputs: inputs accepted and not answered yet.
        queued_tokens: tokens of the inputs that are prepared and wait for a batch.
        batch_tokens: tokens of one batch at most.
        memory: of the device that computes.
        busy_seconds: seconds that the device has computed so far.
        start_seconds: duration of each stage of the start, such as reading the weights.
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
    """Seconds that one request took.

    Attributes:
        prepare: preparing its inputs, summed.
        queue: the longest wait of an input for its batch.
        forward: the batches that its inputs were in, summed.
    """

    prepare: float = 0.0
    queue: float = 0.0
    forward: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """The answer to one request, with one entry for each input, in order.

    Attributes:
        vectors: one multi-vector for each input: float32 (vectors, dim), ragged.
        token_count: sequence tokens, visual and text, that were computed.
        timings: what took how long.
        batch_sizes: for each input, the number of inputs in its batch.
        tokens: for each text, one token for each of its vectors; empty unless asked for.
    """

    vectors: list[MultiVector]
    token_count: int = 0
    timings: Timings = Timings()
    batch_sizes: tuple[int, ...] = ()
    tokens: tuple[tuple[Token, ...], ...] = ()


class Embedder(Protocol):
    """Turns texts or page images into multi-vectors. All methods may be called from any thread.

    A request is answered for all of its inputs or, with an error, for none. Cancelling its future
    takes its inputs out of the queue. The future raises NotReady, EngineFailed, Draining,
    QueueFull, TooManyInputs, TooMuchWork, or the error of the one input that is to blame, with its
    index.
    """

    def info(self) -> ModelInfo:
        """Return the model and where it runs.

        Raises:
            NotReady: the model is still being loaded.
            EngineFailed: the model failed for good.
            EngineFailed: it will never be ready.
        """
        ...

    def embed_texts(
        self,
        texts: Sequence[str],
        pool_factor: int = 1,
        *,
        tokens: bool = False,
        caller: str = "",
        vector_bytes: int = 0,
    ) -> "Future[Embedded]":
        """Embed texts.

        Args:
            texts: queries or passages.
            pool_factor: above 1, similar vectors are merged into about 1 / `pool_factor` of them.
            tokens: whether to return the token behind each vector; not with pooling, and only for
                models whose `info().tells_tokens` is true.
            caller: who asks; callers share the engine fairly.
            vector_bytes: bytes that each vector takes in the caller's answer; they count towards
                the limit on the bytes of one answer.
        """
        ...

    def embed_images(
        self,
        images: Sequence[EncodedImage],
        pool_factor: int = 1,
        *,
        caller: str = "",
        vector_bytes: int = 0,
    ) -> "Future[Embedded]":
        """Embed page images.

        Args:
            images: the pages.
            pool_factor: above 1, similar vectors are merged into about 1 / `pool_factor` of them.
            caller: as for `embed_texts`.
            vector_bytes: as for `embed_texts`.
        """
        ...

    def health(self) -> Health:
        """Return a snapshot, without waiting for the model."""
        ...

    def close(self) -> None:
        """Accept no more requests, finish those that were accepted, release the model."""
        ...
