"""The candidates for a GPU give the vectors of the backend as it is, as far as a CPU can tell."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.emulated_cuda import EmulatedTensor, emulated_cuda
from benchmarks.gpu import candidates
from benchmarks.gpu.launching import (
    PAGEABLE,
    GraphedQueries,
    OverlappedPasses,
    Transfers,
    record_nothing,
)

from benchmarks import data, savings
from conftest import make_settings
from pagevec.engine.backends import load
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.backends.packed.layers import apply_rotary
from pagevec.types import MultiVector

TEXTS = ["Which route?", "x", "Which route carried the most passengers in the winter?"]
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@pytest.fixture(scope="module")
def backend() -> PackedBackend:
    loaded = load(make_settings(device="cpu", forward="packed"))
    assert isinstance(loaded, PackedBackend)
    return loaded


@pytest.fixture(scope="module")
def batches(backend: PackedBackend) -> list[list[Any]]:
    pages = [
        backend.prepare_page(image)
        for size in ((140, 196), (84, 56))
        for image in data.make_images(1, size)
    ]
    return [pages, list(backend.prepare_texts(TEXTS))]


def embed(backend: Any, batches: list[list[Any]]) -> list[MultiVector]:
    return [one for batch in batches for one in backend.forward(batch)]


def largest_difference(some: list[MultiVector], others: list[MultiVector]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


def make_angles(tokens: int, half: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(tokens, half) * 6
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32], ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 80), (18, 128)], ids=["vision", "language"])
def test_rotary_embedding(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """One expression rotates as the backend does, up to the last bit of its dtype."""
    pairs = torch.randn(9, *shape).to(dtype)
    cos_sin = make_angles(9, shape[-1] // 2)
    expected = apply_rotary(pairs, cos_sin)
    cos, sin = (one.view(9, *[1] * (len(shape) - 1), -1) for one in cos_sin)
    torch.testing.assert_close(candidates.rotate(pairs, cos, sin), expected)


def test_gate() -> None:
    """Rounded once in place of twice, it is nearer to float32 than what the backend does."""
    both = torch.randn(64, 512)
    exact = candidates.gate(both)
    torch.testing.assert_close(exact, candidates.gate_in_place(both.clone()))
    half = both.to(BFLOAT16)
    exact = candidates.gate(half.float())
    once, twice = candidates.gate(half), candidates.gate_in_place(half.clone())
    assert (once - exact).norm() <= (twice - exact).norm()


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++ on a CPU")
@pytest.mark.parametrize(
    "function", [candidates.gate, candidates.quantise], ids=lambda f: f.__name__
)
def test_compiled_for_any_length(function: Callable[..., Any]) -> None:
    """Compiled functions give the same for several lengths, and are compiled for all at once."""
    torch._dynamo.reset()
    compiled = candidates.compile_for_any_length(function)
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (7, 13, 40):
            rows = torch.randn(tokens, 64).to(BFLOAT16)
            got, expected = compiled(rows), function(rows)
            for one, other in zip(
                *(x if isinstance(x, tuple) else (x,) for x in (got, expected)), strict=True
            ):
                torch.testing.assert_close(one.float(), other.float(), rtol=0.07, atol=1e-2)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++ on a CPU")
def test_compiled_passes(backend: PackedBackend, batches: list[list[Any]]) -> None:
    """A whole pass with compiled functions gives the vectors of the backend as it is."""
    expected = embed(backend, batches)
    with candidates.fuse_all(backend) as fused:
        assert largest_difference(embed(fused, batches), expected) < 1e-4
    assert largest_difference(embed(backend, batches), expected) == 0


USES: dict[str, Callable[[PackedBackend], AbstractContextManager[Any]]] = {
    "fused": partial(candidates.fuse_elementwise, make=candidates.run_eagerly),
    "sums": candidates.add_within_products,
    "both": partial(candidates.fuse_all, make=candidates.run_eagerly),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_vectors_stay_the_same(
    use: Callable[[PackedBackend], AbstractContextManager[Any]],
    backend: PackedBackend,
    batches: list[list[Any]],
) -> None:
    """In float32 a candidate gives the same vectors, and leaves the backend as it was."""
    expected = embed(backend, batches)
    with use(backend) as changed:
        assert largest_difference(embed(changed, batches), expected) < 1e-5
    assert largest_difference(embed(backend, batches), expected) == 0


def test_fp8(backend: PackedBackend, batches: list[list[Any]]) -> None:
    """FP8 changes vectors a little; which products it takes is the rule of torchao's FP8."""
    expected = np.concatenate(embed(backend, batches))
    fp8 = candidates.use_fp8(backend, candidates.run_eagerly, candidates.multiply_exactly)
    with fp8 as reduced:
        got = np.concatenate(embed(reduced, batches))
    cosine = float((got * expected).sum(axis=1).mean())
    assert 0.97 < cosine < 1 - 1e-5
    assert len(list(candidates.find_products(backend))) == 4 * (5 + 2)


def test_fp8_of_zeros() -> None:
    """A row of zeros has a scale; the largest number of a row becomes the largest of FP8."""
    rows = torch.zeros(2, 16, dtype=BFLOAT16)
    rows[1, 3] = -5
    numbers, scale = candidates.quantise(rows)
    assert (numbers.float() * scale)[0].eq(0).all()
    assert numbers[1, 3].float() == -448


def test_queries_by_graph(backend: PackedBackend) -> None:
    """Padding at the end of a query does not change its vectors; a bucket is recorded once."""
    recorded: list[int] = []

    def record(work: Any, ids: torch.Tensor) -> Any:
        recorded.append(len(ids))
        return record_nothing(work, ids)

    graphed = GraphedQueries(backend, record)
    texts = list(backend.prepare_texts([*TEXTS, *TEXTS]))
    for text in texts:
        [ours], [theirs] = graphed.forward([text]), backend.forward([text])
        assert np.abs(ours - theirs).max() < 1e-5
    buckets = [text.tokens + -text.tokens % 16 for text in texts]
    assert recorded == list(dict.fromkeys(buckets))
    assert all(
        len(one) == text.tokens for one, text in zip(graphed.forward(texts), texts, strict=True)
    )


def test_overlapped_passes(backend: PackedBackend, batches: list[list[Any]]) -> None:
    """Two threads get the same vectors; one waits for its own without holding the lock."""
    held: list[bool] = []

    def fetch(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        assert overlapped.launching.locked()

        def wait() -> torch.Tensor:
            # Another thread may launch meanwhile: the lock can be had.
            with overlapped.launching:
                held.append(True)
            return PAGEABLE.fetch(tensor)()

        return wait

    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.numel())
        return tensor

    overlapped = OverlappedPasses(backend, Transfers(pin, fetch))
    assert overlapped.hints.threads == 2
    pages, texts = batches
    expected = embed(backend, batches)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(overlapped.forward, [pages, texts] * 3))
    for some, more in list(pairwise(answers))[::2]:
        assert largest_difference(some + more, expected) < 1e-5
    assert len(held) == 6
    assert pinned == [sum(one.tokens for one in texts)] * 3
    [image] = data.make_images(1, (56, 56))
    page = overlapped.prepare_page(image)
    assert pinned[-1] == page.pixels.numel()


@pytest.mark.long
def test_what_can_be_counted() -> None:
    """Each candidate launches less; one kernel that reads and writes once moves fewer bytes."""
    as_it_is, fused, sums, both = savings.measure(pages=2).as_json()["rows"]
    assert both["launches"] < fused["launches"] < sums["launches"] < as_it_is["launches"]
    assert both["gigabytes"] < fused["gigabytes"] < 0.7 * as_it_is["gigabytes"]
    # Two sums in each of 36 layers.
    assert as_it_is["query_launches"] - sums["query_launches"] == 72


def test_one_kernel_on_the_emulated_device() -> None:
    """An operator that is counted as one launch computes the same."""
    rotate = candidates.as_one_kernel(candidates.rotate)
    pairs, (cos, sin) = torch.randn(5, 3, 8).to(BFLOAT16), make_angles(5, 4)
    expected = candidates.rotate(pairs, cos[:, None], sin[:, None])
    with emulated_cuda() as cuda:
        got = rotate(pairs.to("cuda"), cos[:, None].to("cuda"), sin[:, None].to("cuda"))
        assert isinstance(got, EmulatedTensor)
        assert cuda.counts.launches.total() == 1
        torch.testing.assert_close(got.cpu(), expected)
