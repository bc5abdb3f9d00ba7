"""The embedder on this machine: batches, order, failures, running out of memory."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_settings, png
from engine.hash_backend import HashBackend, Words, embed
from pagevec.engine.api import Embedded
from pagevec.engine.backends import backend_of, load
from pagevec.engine.backends.base import Backend, BatchHints
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models import loader
from pagevec.engine.models.loader import LoadedModel
from pagevec.errors import (
    CheckpointError,
    Draining,
    EngineFailed,
    InternalError,
    InvalidImage,
    OutOfMemory,
    TextTooLong,
    TooManyInputs,
    TooMuchWork,
)
from pagevec.images import EncodedImage, read_image
from pagevec.types import MultiVector

QUERIES = ["short", "", "a query of middling length, for padding", "long " * 40, "the last one"]


@contextmanager
def engine(
    prepare: Callable[[LoadedModel], None] = lambda model: None,
    **options: Any,
) -> Iterator[LocalEmbedder]:
    """Yield a ready embedder over the bundled model, which `prepare` may change first."""
    settings = make_settings()

    def load_and_prepare() -> Backend[Any]:
        model = loader.load(settings)
        prepare(model)
        return backend_of(model)

    embedder = LocalEmbedder(load_and_prepare, **options)
    try:
        embedder.wait_until_ready()
        yield embedder
    finally:
        embedder.close()


def pages(*sizes: tuple[int, int]) -> list[EncodedImage]:
    return [read_image(png(*size, seed=seed)) for seed, size in enumerate(sizes)]


def assert_same(one: Embedded, others: list[Embedded]) -> None:
    for vectors, other in zip(one.vectors, others, strict=True):
        assert vectors.shape == other.vectors[0].shape
        assert np.abs(vectors - other.vectors[0]).max() <= 1e-4
        clear = np.abs(other.vectors[0]) > 1e-3
        assert (np.sign(vectors)[clear] == np.sign(other.vectors[0])[clear]).all()


class TestBatches:
    def test_texts_batch_equals_single(self, embedder: LocalEmbedder) -> None:
        """A text's vectors do not depend on which texts share its batch."""
        together = embedder.embed_texts(QUERIES).result()
        assert max(together.batch_sizes) > 1
        assert_same(together, [embedder.embed_texts([query]).result() for query in QUERIES])

    def test_pages_batch_equals_single(self) -> None:
        """A page's vectors do not depend on which pages, of other sizes, share its batch."""
        inputs = pages((600, 800), (1, 1), (256, 1), (800, 600), (300, 40))
        with engine(batch_tokens=5000, model_threads=1) as embedder:
            together = embedder.embed_images(inputs).result()
            assert max(together.batch_sizes) > 1
            assert_same(together, [embedder.embed_images([page]).result() for page in inputs])

    def test_callers_share_batches(self) -> None:
        """Requests that wait at the same time go through the model together."""
        gate, passes = threading.Event(), list[int]()
        with engine(lambda model: hold_pages(model, gate, passes), model_threads=1) as embedder:
            page = embedder.embed_images(pages((300, 300)))
            while not passes:  # the page is in the model: whatever comes now waits
                time.sleep(0.01)
            texts = [embedder.embed_texts([f"caller {n}"]) for n in range(8)]
            while embedder.health().queued_tokens == 0:
                time.sleep(0.01)
            time.sleep(0.1)
            gate.set()
            page.result()
            assert max(text.result().batch_sizes[0] for text in texts) > 1

    def test_answers_go_to_their_callers(self, embedder: LocalEmbedder) -> None:
        """Each of 64 callers at once gets its own vectors, as if it were alone."""
        texts = [f"number {n} " + "x" * (n % 7 * 9) for n in range(64)]
        futures: dict[int, Future[Embedded]] = {}

        def call(n: int) -> None:
            futures[n] = embedder.embed_texts([texts[n], "same for all"])

        threads = [threading.Thread(target=call, args=(n,)) for n in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n, text in enumerate(texts):
            assert_same(
                futures[n].result(),
                [
                    embedder.embed_texts([text]).result(),
                    embedder.embed_texts(["same for all"]).result(),
                ],
            )


class TestFailures:
    def test_a_bad_image_fails_its_request_only(self, embedder: LocalEmbedder) -> None:
        """A truncated page fails its request, with its index; another request goes on."""
        good = pages((300, 300), (320, 200))
        cut = replace(good[0], data=good[0].data[:-400])
        bad, neighbour = embedder.embed_images([good[0], cut, good[1]]), embedder.embed_images(good)
        with pytest.raises(InvalidImage) as error:
            bad.result()
        assert error.value.index == 1
        assert len(neighbour.result().vectors) == 2

    def test_a_cancelled_request_leaves_the_queue(self) -> None:
        """The work of a caller who left is not done."""
        gate, passes = threading.Event(), []
        with engine(lambda model: hold_pages(model, gate, passes), model_threads=1) as embedder:
            first = embedder.embed_images(pages((300, 300)))
            while embedder.health().queued_inputs == 0 or not passes:
                time.sleep(0.01)
            second = embedder.embed_images(pages((300, 300)))
            assert second.cancel()
            gate.set()
            first.result()
            third = embedder.embed_images(pages((280, 280)))
            third.result()
            assert len(passes) == 2
            with pytest.raises(CancelledError):
                second.result()
            assert embedder.health().queued_inputs == 0

    def test_a_failing_batch_fails_only_the_input_to_blame(self) -> None:
        """When a forward pass raises, the batch is halved until the input to blame is found."""

        def fails_on_repetition(ids: torch.Tensor) -> None:
            if ids.unique_consecutive(return_counts=True)[1].max() > 150:
                raise RuntimeError("a kernel failed")

        with engine(lambda model: check_texts(model, fails_on_repetition)) as embedder:
            guilty = embedder.embed_texts(["y" * 200])
            neighbours = [embedder.embed_texts([query]) for query in ("one", "two", "three")]
            with pytest.raises(InternalError) as error:
                guilty.result()
            assert error.value.index == 0
            assert "kernel" not in error.value.message
            assert all(len(one.result().vectors) == 1 for one in neighbours)

    def test_a_text_beyond_the_context_is_refused(self) -> None:
        """A text beyond the model's context is an error with its index; it is never cut."""

        def shorten(model: LoadedModel) -> None:
            model.model.config.get_text_config().max_position_embeddings = 100

        with engine(shorten) as embedder, pytest.raises(TextTooLong) as error:
            embedder.embed_texts(["fine", "z" * 101]).result()
        assert error.value.index == 1

    def test_loading_failure_is_reported(self) -> None:
        """A missing checkpoint fails the start, and every request, with a sentence."""
        settings = make_settings(model="/nowhere/at/all", offline=True)
        embedder = LocalEmbedder(lambda: load(settings))
        with pytest.raises(CheckpointError, match="/nowhere/at/all"):
            embedder.wait_until_ready()
        with pytest.raises(EngineFailed):
            embedder.embed_texts(["hello"]).result()
        assert embedder.health().state == "failed"
        embedder.close()


class TestAdmission:
    def test_empty_request(self, embedder: LocalEmbedder) -> None:
        """No inputs, no vectors, no wait."""
        assert embedder.embed_texts([]).result().vectors == []

    def test_more_than_the_time_budget_allows(self) -> None:
        """A request that cannot be done in time is refused at once; a smaller one is served."""
        with engine(request_seconds=1.5) as embedder:
            many = pages(*[(1240, 1754)] * 40)
            with pytest.raises(TooMuchWork):
                embedder.embed_images(many).result()
            assert len(embedder.embed_images(pages((300, 300))).result().vectors) == 1

    def test_more_inputs_than_may_ever_wait(self) -> None:
        """A request larger than the queue is refused for good: trying again would not help."""
        with engine(max_queued_inputs=4) as embedder:
            with pytest.raises(TooManyInputs):
                embedder.embed_texts(["one"] * 5).result()
            assert len(embedder.embed_texts(["one"] * 4).result().vectors) == 4

    def test_closing_finishes_what_was_accepted(self) -> None:
        """close() waits for all requests that were accepted, and accepts no new ones."""
        with engine() as embedder:
            taken = [embedder.embed_images(pages((400, 400), (300, 500))) for _ in range(3)]
            embedder.close()
            assert all(len(one.result(0).vectors) == 2 for one in taken)
            with pytest.raises(Draining):
                embedder.embed_texts(["too late"]).result()


class PatientBackend(HashBackend):
    """Its batches of pages wait for `go_on` once `holds` is set."""

    hints = BatchHints(threads=2)

    def __init__(self) -> None:
        self.go_on, self.holds, self.held = threading.Event(), False, threading.Semaphore(0)

    def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
        if self.holds and any(len(words) > 50 for words in batch):
            self.held.release()
            assert self.go_on.wait(60)
        return super().forward(batch)


def test_queries_do_not_wait_for_pages() -> None:
    """While every thread of the model is busy with a page, a query is answered beside them."""
    backend = PatientBackend()
    embedder = LocalEmbedder(lambda: backend, batch_tokens=64)
    embedder.wait_until_ready()
    backend.holds = True
    taken = [embedder.embed_images(pages((1000, 600 + size))) for size in range(3)]
    assert backend.held.acquire(timeout=60) and backend.held.acquire(timeout=60)
    for text in ("one", "another"):
        [vectors] = embedder.embed_texts([text]).result(60).vectors
        np.testing.assert_array_equal(vectors, [embed(text.encode())])
    backend.go_on.set()
    assert all(len(one.result(60).vectors) == 1 for one in taken)
    embedder.close()


class TestOutOfMemory:
    """A real model whose forward pass raises when a batch is too large."""

    @pytest.mark.parametrize("kind", ["cuda", "cpu"])
    def test_batches_are_halved_until_they_fit(self, kind: str) -> None:
        """No input is skipped, the order stays, and the size that worked is remembered."""
        largest_that_fits = 300
        attempts: list[int] = []

        def runs_out(ids: torch.Tensor) -> None:
            attempts.append(len(ids))
            if len(ids) > largest_that_fits:
                raise_out_of_memory(kind)

        with engine(lambda model: check_texts(model, runs_out)) as embedder:
            assert embedder.health().batch_tokens <= largest_that_fits
            attempts.clear()
            texts = [f"text number {n:02}" for n in range(40)]
            together = embedder.embed_texts(texts).result()
            assert max(attempts) <= largest_that_fits, "the size that worked is remembered"
        with engine() as plenty:
            assert_same(together, [plenty.embed_texts([text]).result() for text in texts])

    @pytest.mark.parametrize("kind", ["cuda", "cpu"])
    def test_memory_that_shrinks_while_serving(self, kind: str) -> None:
        """Running out while serving halves the batch and loses nothing."""
        limit = [10**9]

        def runs_out(ids: torch.Tensor) -> None:
            if len(ids) > limit[0]:
                raise_out_of_memory(kind)

        with engine(lambda model: check_texts(model, runs_out)) as embedder:
            before = embedder.health().batch_tokens
            limit[0] = 200
            result = embedder.embed_texts([f"text number {n:02}" for n in range(40)]).result()
            assert len(result.vectors) == 40
            assert embedder.health().batch_tokens <= limit[0] < before

    def test_one_input_that_does_not_fit(self) -> None:
        """An input that does not fit alone fails its own request, with its index."""

        def runs_out(ids: torch.Tensor) -> None:
            if len(ids) > 2000:
                raise_out_of_memory("cuda")

        with engine(lambda model: check_texts(model, runs_out)) as embedder:
            large = embedder.embed_texts(["small", "w" * 2500])
            other = embedder.embed_texts(["small too"])
            with pytest.raises(OutOfMemory) as error:
                large.result()
            assert error.value.index == 1
            assert len(other.result().vectors) == 1
            assert embedder.health().state == "ready"


def raise_out_of_memory(kind: str) -> None:
    if kind == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    torch.empty(2**55, dtype=torch.uint8)  # the CPU's allocator raises its own error


def check_texts(model: LoadedModel, check: Callable[[torch.Tensor], None]) -> None:
    """Have `check` see the tokens of each batch of texts, inside the forward pass."""
    watch(model, lambda ids, is_page: None if is_page else check(ids))


def hold_pages(model: LoadedModel, gate: threading.Event, passes: list[int] | None = None) -> None:
    """Hold passes over pages of at most 300 x 300 pixels until `gate` opens; count them."""

    def hold(ids: torch.Tensor, is_page: bool) -> None:
        if is_page and len(ids) < 200:
            if passes is not None:
                passes.append(1)
            gate.wait(30)

    watch(model, hold)


def watch(model: LoadedModel, look: Callable[[torch.Tensor, bool], None]) -> None:
    """Have `look` see the tokens of each batch, and whether it is one of pages."""
    image = model.model.config.image_token_id

    def hook(module: Any, positional: Any) -> None:
        [ids] = positional
        look(ids, bool((ids == image).any()))

    model.model.get_input_embeddings().register_forward_pre_hook(hook)
