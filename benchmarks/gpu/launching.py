"""More candidates: how the host launches, with a CUDA graph or while another pass computes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import normalize, pad

from pagevec.engine.backends.device import split_rows
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.backends.packed.inputs import PackedPage
from pagevec.engine.backends.preprocess import TextInput
from pagevec.images import EncodedImage
from pagevec.types import MultiVector

_BUCKET = 16  # lengths of queries are rounded up to a multiple of this
_LONGEST = 256  # longer texts keep the device busy by themselves

Work = Callable[[torch.Tensor], torch.Tensor]
Record = Callable[[Work, torch.Tensor], Callable[[], torch.Tensor]]
"""Takes work and the tensor that it reads; returns what does it again, whatever is there then."""


@torch.inference_mode()
def record_graph(work: Work, ids: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Record `work` as a CUDA graph, which the host launches at once."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # libraries and caches allocate what a graph may not
            work(ids)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        vectors = work(ids)

    def replay() -> torch.Tensor:
        graph.replay()
        return vectors

    return replay


def record_nothing(work: Work, ids: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Do the work anew each time: the same arithmetic, without a graph."""
    return partial(work, ids)


class GraphedQueries:
    """A backend that answers single queries with a CUDA graph for each multiple of 16 tokens.

    A query is padded at its end: attention is causal, so its own vectors do not see the padding. It
    is for one thread, as the engine has one on a GPU.
    """

    def __init__(self, backend: PackedBackend, record: Record = record_graph) -> None:
        """Record nothing yet.

        Args:
            backend: answers everything else.
            record: makes a graph.
        """
        self._backend, self._record = backend, record
        self._recorded: dict[int, tuple[torch.Tensor, Callable[[], torch.Tensor]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @torch.inference_mode()
    def forward(self, batch: Sequence[TextInput | PackedPage]) -> list[MultiVector]:
        """See `Backend.forward`."""
        [first, *others] = batch
        if others or not isinstance(first, TextInput) or first.tokens > _LONGEST:
            return self._backend.forward(batch)
        bucket = first.tokens + -first.tokens % _BUCKET
        ids, replay = self._recorded.get(bucket) or self._prepare(bucket)
        ids.copy_(pad(first.sequence["input_ids"], (0, bucket - first.tokens)), non_blocking=True)
        return split_rows(replay()[: first.tokens], [first.tokens])

    def _prepare(self, bucket: int) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
        backend = self._backend
        positions = backend._positions.of_text(bucket)
        ids = torch.zeros(bucket, dtype=torch.int64, device=backend._device)

        def work(ids: torch.Tensor) -> torch.Tensor:
            hidden = backend._decode(backend._embedding(ids), [positions])
            return normalize(backend._projection(hidden).float(), dim=-1)

        self._recorded[bucket] = ids, self._record(work, ids)
        return self._recorded[bucket]


@dataclass(frozen=True)
class Transfers:
    """How data go between host and device.

    Attributes:
        pin: returns a tensor of the host in memory from which copies need not wait.
        fetch: begins to copy a tensor to the host; returns what waits for it, and for it alone.
    """

    pin: Callable[[torch.Tensor], torch.Tensor]
    fetch: Callable[[torch.Tensor], Callable[[], torch.Tensor]]


def fetch_pinned(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Copy a tensor of a GPU into pinned memory; see `Transfers.fetch`."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record()

    def wait() -> torch.Tensor:
        done.synchronize()
        return host

    return wait


PINNED = Transfers(torch.Tensor.pin_memory, fetch_pinned)
PAGEABLE = Transfers(lambda tensor: tensor, lambda tensor: tensor.cpu)
"""For a device without pinned memory: `fetch` waits for all that was launched before."""


class OverlappedPasses:
    """A backend for two threads: one launches its pass while the device computes the other's.

    A lock is held while a pass is launched, and no longer when the host waits for its vectors. A
    copy from memory that is not pinned would wait for the other pass, so pages are pinned when they
    are prepared, and the tokens of texts before they are copied.

    Attributes:
        hints: of the backend, with two threads.
        launching: held by the thread that launches.
    """

    def __init__(self, backend: PackedBackend, transfers: Transfers = PINNED) -> None:
        self._backend, self._transfers = backend, transfers
        self.launching = threading.Lock()
        self.hints = replace(backend.hints, threads=2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def prepare_page(self, image: EncodedImage) -> PackedPage:
        """See `Backend.prepare_page`."""
        return self.pin_page(self._backend.prepare_page(image))

    def pin_page(self, page: PackedPage) -> PackedPage:
        """Return `page` with pixels in pinned memory."""
        return replace(page, pixels=self._transfers.pin(page.pixels))

    @torch.inference_mode()
    def forward(self, batch: Sequence[TextInput | PackedPage]) -> list[MultiVector]:
        """See `Backend.forward`."""
        with self.launching:
            wait = self._transfers.fetch(self._launch(batch))
        return split_rows(wait(), [one.tokens for one in batch])

    def _launch(self, batch: Sequence[TextInput | PackedPage]) -> torch.Tensor:
        backend = self._backend
        pages = [one for one in batch if isinstance(one, PackedPage)]
        if pages:
            vectors: torch.Tensor = backend._projection(backend._forward_pages(pages))
            return vectors
        ids = [one.sequence["input_ids"] for one in batch if isinstance(one, TextInput)]
        on_device = self._transfers.pin(torch.cat(ids)).to(backend._device, non_blocking=True)
        positions = [backend._positions.of_text(len(one)) for one in ids]
        hidden = backend._decode(backend._embedding(on_device), positions)
        vectors = backend._projection(hidden)
        return vectors
