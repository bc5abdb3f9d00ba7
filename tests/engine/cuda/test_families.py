"""Every family on an emulated GPU in bfloat16: colpali-engine's vectors, alone and in batches."""

from typing import Any

import numpy as np
import pytest
from benchmarks.emulated_cuda import Counts, EmulatedCuda, emulated_cuda

from checkpoints import FAMILIES
from engine.cuda.conftest import (
    TEXTS,
    Checkpoint,
    Checkpoints,
    load_on_cuda,
    mean_cosine,
    prepare_pages,
)
from pagevec.engine.backends.base import Backend
from pagevec.engine.models.registry import find_family

# Launches of a pass of three pages or texts at most, and of each page more: the checkpoints have
# two layers in either tower. A rotary embedding in float32 would take four more a layer.
MOST_LAUNCHES = {"colqwen2": 100, "colqwen2_5": 98, "colqwen_omni": 98, "colqwen3": 126}
MOST_LAUNCHES_OF_A_PAGE = 6
PACKED = [name for name in FAMILIES if find_family(name).packed]


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> Checkpoint:
    return checkpoints.of(request.param)


def count(cuda: EmulatedCuda, backend: Backend[Any], batch: list[Any]) -> Counts:
    """Return what a pass of `batch` does when its positions are cached."""
    backend.forward(batch)
    cuda.counts = Counts()
    backend.forward(batch)
    return cuda.counts


def test_vectors_of_bfloat16(checkpoint: Checkpoint) -> None:
    """Pages and texts, in a batch and alone, are near colpali-engine's in float32."""
    with emulated_cuda():
        backend = load_on_cuda(checkpoint)
        assert (backend.info().device, backend.info().dtype) == ("cuda:0", "bfloat16")
        pages, texts = prepare_pages(backend), list(backend.prepare_texts(TEXTS))
        for batch, theirs in ((pages, checkpoint.pages), (texts, checkpoint.texts)):
            together = backend.forward(batch)
            alone = [backend.forward([one])[0] for one in batch]
            assert mean_cosine(together, theirs) > 0.999
            assert mean_cosine(alone, theirs) > 0.999
            assert mean_cosine(together, alone) > 0.9995


@pytest.mark.parametrize("family", PACKED)
def test_a_packed_pass_waits_once_and_launches_little(
    family: str, checkpoints: Checkpoints
) -> None:
    """The host waits for the vectors alone; a page more in a batch costs few launches."""
    with emulated_cuda() as cuda:
        backend = load_on_cuda(checkpoints.of(family))
        pages = prepare_pages(backend)
        for batch in ([pages[0]], pages, list(backend.prepare_texts(TEXTS))):
            counts = count(cuda, backend, batch)
            assert +counts.synchronisations == {"copy to the host": 1}
            assert counts.launches.total() <= MOST_LAUNCHES[family], counts.launches
        of_three, of_six = (count(cuda, backend, pages * n).launches.total() for n in (1, 2))
        assert of_six - of_three <= 3 * MOST_LAUNCHES_OF_A_PAGE


@pytest.mark.parametrize("family", PACKED)
def test_a_packed_page_does_not_see_another(family: str, checkpoints: Checkpoints) -> None:
    """A page's vectors stay the same, whatever stands beside it in a batch."""
    with emulated_cuda():
        backend = load_on_cuda(checkpoints.of(family))
        first, second, third = prepare_pages(backend)
        [beside_second, _] = backend.forward([first, second])
        [beside_third, _] = backend.forward([first, third])
        assert np.abs(beside_second - beside_third).max() < 2e-2


def test_a_padded_pass_adds_no_wait_to_the_model_s_own(checkpoints: Checkpoints) -> None:
    """PaliGemma's forward waits once by itself; cutting off the padding waits for nothing."""
    with emulated_cuda() as cuda:
        backend = load_on_cuda(checkpoints.of("colpali"))
        counts = count(cuda, backend, list(backend.prepare_texts(TEXTS)))
        assert +counts.synchronisations == {"copy to the host": 1}
