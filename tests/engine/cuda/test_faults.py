"""The emulated device notices what a real one would refuse, or be slow at."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.emulated_cuda import Counts, emulated_cuda

from engine.cuda.conftest import Checkpoints, load_on_cuda, prepare_pages
from pagevec.engine.backends.packed import backend as packed
from pagevec.engine.backends.packed import segments
from pagevec.engine.backends.packed.positions import PositionCache
from pagevec.errors import CheckpointError


def embed_pages(checkpoints: Checkpoints) -> Counts:
    """Return what a pass of pages does; a fault shows when the checkpoint is loaded."""
    with emulated_cuda() as cuda:
        backend = load_on_cuda(checkpoints.of("colqwen2_5"), forward="packed")
        cuda.counts = Counts()
        backend.forward(prepare_pages(backend))
        return cuda.counts


def change(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[[Any], Any]
) -> None:
    """Let a function return what `change` makes of its result."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **named: change(original(*args, **named)))


def test_a_table_on_the_other_device(
    monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints
) -> None:
    """Rotary angles that stay on the host are refused."""
    change(monkeypatch, PositionCache, "_rotate", lambda pair: tuple(one.cpu() for one in pair))
    with pytest.raises(CheckpointError, match="same device"):
        embed_pages(checkpoints)


def test_bounds_of_64_bits(monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints) -> None:
    """Cumulative lengths have to be int32."""
    bounds = property(lambda self: torch.tensor([0, *self.lengths]).cumsum(0).to("cuda"))
    monkeypatch.setattr(segments.Segments, "cu_seqlens", bounds)
    with pytest.raises(CheckpointError, match="int32"):
        embed_pages(checkpoints)


def test_a_transposed_view(monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints) -> None:
    """Attention needs the components of a head side by side."""
    original = segments._attend_varlen

    def attend(query: torch.Tensor, *others: Any) -> torch.Tensor:
        return original(query.transpose(1, 2).contiguous().transpose(1, 2), *others)

    monkeypatch.setattr(segments, "_attend_varlen", attend)
    with pytest.raises(CheckpointError, match="contiguous last dimension"):
        embed_pages(checkpoints)


def test_a_second_wait(monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints) -> None:
    """A number that is read from the device is a second synchronisation."""
    assert embed_pages(checkpoints).synchronisations.total() == 1

    def read_one(cos_sin: Any) -> Any:
        cos_sin[0].sum().item()
        return cos_sin

    change(monkeypatch, packed, "concatenate", read_one)
    assert embed_pages(checkpoints).synchronisations.total() == 2


def test_a_card_without_flash_attention(
    monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints
) -> None:
    """FlashAttention is refused below compute capability 8.0."""
    monkeypatch.setattr(segments, "FLASH_ATTENTION_FROM", (7, 5))
    with emulated_cuda((7, 5)), pytest.raises(CheckpointError, match="Ampere"):
        load_on_cuda(checkpoints.of("colqwen2_5"), forward="packed", dtype="float16")
