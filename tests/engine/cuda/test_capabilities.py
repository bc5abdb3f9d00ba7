"""What a card can do decides what runs on it."""

import pytest
from benchmarks.emulated_cuda import CUDA, Counts, emulated_cuda

from checkpoints import FAMILIES
from conftest import make_settings
from engine.cuda.conftest import TEXTS, Checkpoints, load_on_cuda, mean_cosine, prepare_pages
from pagevec.engine.backends import backend_of
from pagevec.engine.backends.base import read_hints
from pagevec.engine.models.loader import on_device, read
from pagevec.engine.models.registry import find_family

PACKED = [name for name in FAMILIES if find_family(name).packed]
T4, A100 = (7, 5), (8, 0)


@pytest.mark.parametrize("family", PACKED)
def test_a_card_before_ampere_answers(family: str, checkpoints: Checkpoints) -> None:
    """On a T4 the packed pass runs in float16 with SDPA, which every card has."""
    checkpoint = checkpoints.of(family)
    with emulated_cuda(T4) as cuda:
        backend = load_on_cuda(checkpoint)
        assert (backend.info().forward, backend.info().dtype) == ("packed", "float16")
        cuda.counts = Counts()
        pages = backend.forward(prepare_pages(backend))
        texts = backend.forward(list(backend.prepare_texts(TEXTS)))
        assert cuda.counts.launches["_flash_attention_forward"] == 0
        assert cuda.counts.launches["scaled_dot_product_attention"] > 0
    assert mean_cosine(pages, checkpoint.pages) > 0.999
    assert mean_cosine(texts, checkpoint.texts) > 0.999


def test_flash_attention_from_ampere_on(checkpoints: Checkpoints) -> None:
    """An A100 runs one attention a layer for a whole batch, whatever the lengths are."""
    with emulated_cuda(A100) as cuda:
        backend = load_on_cuda(checkpoints.of("colqwen2_5"))
        cuda.counts = Counts()
        backend.forward(prepare_pages(backend))
        assert cuda.counts.launches["_flash_attention_forward"] == 4
        assert cuda.counts.launches["scaled_dot_product_attention"] == 0


def test_float32_needs_no_flash_attention(checkpoints: Checkpoints) -> None:
    """In float32, which FlashAttention does not take, the vectors are colpali-engine's."""
    checkpoint = checkpoints.of("colqwen2_5")
    with emulated_cuda():
        backend = load_on_cuda(checkpoint, dtype="float32")
        assert mean_cosine(backend.forward(prepare_pages(backend)), checkpoint.pages) > 0.99999


def test_hints_for_a_gpu() -> None:
    """A model that was read on a machine without CUDA gets a GPU's batches when it is there."""
    loaded = read(make_settings(device="cuda"))
    assert read_hints(backend_of(loaded)).batch_tokens == 1024
    with emulated_cuda():
        hints = read_hints(backend_of(on_device(loaded, CUDA)))
    assert (hints.batch_tokens, hints.threads) == (16_384, 1)
