"""What the stages share: the device, the 3B model on it, its pages, and the clock."""

import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from unittest.mock import patch

import torch

from benchmarks import data, models
from benchmarks.emulated_cuda import EmulatedCuda, enter
from benchmarks.full_size import make_config, make_processor
from benchmarks.machine import time_once
from pagevec.engine.backends.base import Backend
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.compat import replace_patch_convolutions
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.models.registry import find_family
from pagevec.settings import Settings
from pagevec.types import ModelInfo

QUERY = "Which route carried the most passengers in the winter of 2024?"
_SEED = 3
_DIFFERENT = 8  # pages; more are these again
_SMALL = (140, 196)

T = TypeVar("T")


class Bench:
    """A device and what is measured on it; the 3B model is made when a stage first needs it.

    Attributes:
        emulated: whether this is a dry run, in which no time means anything.
        device: the GPU.
        page_size: width and height of a page in pixels: A4 at 150 dpi.
    """

    def __init__(self, seconds: float, cuda: EmulatedCuda | None = None) -> None:
        """Start the clock.

        Args:
            seconds: after them no stage begins, and loops over many cases end.
            cuda: the emulated device, for a dry run with small shapes.
        """
        self.emulated = cuda is not None
        self.device = torch.device("cuda:0")
        self.page_size = self.pick(data.SIZES["A4"], _SMALL)
        self._cuda = cuda
        self._end = time.monotonic() + seconds
        self._opened = ExitStack()

    def pick(self, real: T, emulated: T) -> T:
        """Return the first one on a GPU, the second one in a dry run."""
        return emulated if self.emulated else real

    def has_time(self) -> bool:
        """Whether the time is not up."""
        return time.monotonic() < self._end

    def within_time(self, cases: Iterable[T]) -> Iterator[T]:
        """Yield `cases` until the time is up."""
        for case in cases:
            if not self.has_time():
                return
            yield case

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()

    def time(self, work: Callable[[], object], rounds: int = 5) -> float:
        """Return the median seconds of `work`, which has run once before.

        Args:
            work: what is timed, from an idle device to an idle device.
            rounds: how often; once in a dry run.
        """

        def run() -> None:
            work()
            self.synchronize()

        run()
        return statistics.median(time_once(run) for _ in range(self.pick(rounds, 1)))

    def free(self) -> None:
        """Release the device's memory that nothing uses."""
        gc.collect()
        torch.cuda.empty_cache()

    @cached_property
    def processor(self) -> Any:
        """The 3B model's processor."""
        return make_processor()

    @cached_property
    def loaded(self) -> LoadedModel:
        """The 3B architecture in bfloat16 on the device, with random weights."""
        model = self.make_model()
        replace_patch_convolutions(model)
        parameters = sum(one.numel() for one in model.parameters())
        info = ModelInfo(
            model="3B",
            family="colqwen2_5",
            dim=128,
            device=str(self.device),
            dtype="bfloat16",
            parameters=parameters,
        )
        return LoadedModel(
            model=model,
            processor=self.processor,
            text_processor=copy.deepcopy(self.processor),
            family=find_family("colqwen2_5"),
            info=info,
            device=self.device,
        )

    @cached_property
    def backend(self) -> PackedBackend:
        """The packed backend over `loaded`."""
        return PackedBackend(self.loaded)

    @cached_property
    def checkpoint(self) -> Path:
        """A checkpoint of the same architecture on disk (7.5 GB), until the bench is closed."""
        folder = Path(self._opened.enter_context(TemporaryDirectory()))
        model = self.make_model()
        if self.emulated:
            # A tensor of the emulated device has no storage that could be written.
            model = copy_model(model, lambda one: one.cpu())
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        del model
        self.free()
        return folder

    def make_model(self) -> Any:
        """Make the 3B architecture on the device; two layers of it in a dry run."""
        config = make_config(self.processor.tokenizer)
        if self.emulated:
            _shrink(config, self.processor.tokenizer)
        from colpali_engine.models import ColQwen2_5

        torch.manual_seed(_SEED)
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("cpu" if self.emulated else self.device):
                model = ColQwen2_5(config)
                # Queries are augmented with the padding token: a row of zeros has no direction.
                torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.02)
        finally:
            torch.set_default_dtype(torch.float32)
        return model.requires_grad_(False).eval().to(self.device)

    @cached_property
    def files(self) -> list[bytes]:
        """A few different pages, as PNG."""
        return data.make_pages(self.pick(_DIFFERENT, 2), self.page_size)

    @cached_property
    def _prepared(self) -> list[Any]:
        images = data.make_images(self.pick(_DIFFERENT, 2), self.page_size)
        return [self.backend.prepare_page(image) for image in images]

    def pages(self, count: int) -> list[Any]:
        """Return `count` pages, prepared for `backend`."""
        return (self._prepared * count)[:count]

    def queries(self, count: int) -> list[Any]:
        """Return the same query `count` times, prepared for `backend`."""
        return list(self.backend.prepare_texts([QUERY])) * count

    def in_any_thread(self, backend: Backend[Any]) -> Backend[Any]:
        """Return `backend`; in a dry run one whose passes other threads may run as well."""
        if self._cuda is None:
            return backend
        entered: Backend[Any] = enter(self._cuda, backend)
        return entered

    @contextmanager
    def run_engine(
        self, settings: Settings, backend: Backend[Any] | None = None
    ) -> Iterator[LocalEmbedder]:
        """Run the engine on `backend`, or on the one of `settings`, until the end of the block."""
        with self.loading_first(), models.run_engine(settings, backend) as engine:
            yield engine

    @contextmanager
    def loading_first(self) -> Iterator[None]:
        """In a dry run let engines load their model in this thread; passes run in any."""
        if self._cuda is None:
            yield
            return
        bench = self

        class LoadsFirst(LocalEmbedder):
            """Loads in the thread that asks for it, and warms up with small batches."""

            @classmethod
            def of(cls, settings: Settings, load: Callable[[], Backend[Any]], *_: Any) -> Any:
                backend = bench.in_any_thread(load())
                small = settings.model_copy(update={"batch_tokens": settings.batch_tokens or 256})
                return LocalEmbedder.of(small, lambda: backend)

        with patch.object(models, "LocalEmbedder", LoadsFirst):
            yield

    def close(self) -> None:
        """Delete what was written to disk."""
        self._opened.close()


def copy_model(model: Any, convert: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a copy of a module whose parameters and buffers are `convert`ed."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = torch.nn.Parameter(convert(parameter.detach()), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = convert(buffer) if buffer.dtype == torch.bfloat16 else buffer
    return copy.deepcopy(model, memo)


def _shrink(config: Any, tokenizer: Any) -> None:
    """Leave two layers and two heads of everything: the same code, in a second."""
    text, vision = config.text_config, config.vision_config
    text.vocab_size, text.hidden_size, text.intermediate_size = len(tokenizer), 256, 320
    text.num_attention_heads, text.num_key_value_heads = 2, 1
    text.num_hidden_layers, text.layer_types = 2, text.layer_types[:2]
    vision.depth, vision.fullatt_block_indexes = 2, [1]
    vision.hidden_size, vision.num_heads, vision.intermediate_size = 160, 2, 210
    vision.out_hidden_size = text.hidden_size
