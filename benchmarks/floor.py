"""What the device does at most, measured, and what a page of A4 needs of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import inputs
from benchmarks.clock import times
from pagevec.engine.backends.padded import runner_of
from pagevec.engine.models.loader import LoadedModel

_SECONDS = 1.0


def _attention_operations(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count both products of an attention, (batch, heads, tokens, dim); causal ones as whole."""
    batch, heads, tokens, dim = query
    return int(2 * batch * heads * tokens * key[2] * (dim + value[3]))


# torch counts the operations of all attentions but this one.
_ATTENTION_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations
}


@dataclass(frozen=True)
class Floor:
    """The least time that a page can take.

    Attributes:
        matrix, attention: operations per second of the one and the other.
        page_matrix, page_attention: operations of a page of A4.
    """

    matrix: float
    attention: float
    page_matrix: float
    page_attention: float

    @property
    def pages_per_second(self) -> float:
        """The pages of A4 that no engine passes on this device."""
        return 1 / (self.page_matrix / self.matrix + self.page_attention / self.attention)

    def sentence(self, reached: float) -> str:
        """Say how near `reached` pages a second are."""
        return (
            f"matrix products {self.matrix / 1e9:.0f} GFLOP/s, attention "
            f"{self.attention / 1e9:.0f} GFLOP/s; a page of A4 is "
            f"{self.page_matrix / 1e9:.1f} and {self.page_attention / 1e9:.1f} GFLOP: "
            f"no more than {self.pages_per_second:.2f} pages/s; "
            f"reached {reached:.2f} ({reached / self.pages_per_second:.0%})"
        )


def floor_of(loaded: LoadedModel) -> Floor:
    """Measure the device, and count the operations of one page of A4."""
    [page] = inputs.make_images(1)
    runner = runner_of(loaded)
    prepared = loaded.preprocessor.page(page)
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION_ON_CPU) as counted:
        runner.forward([prepared])
    by_operation: dict[Any, int] = counted.get_flop_counts()["Global"]
    attention = sum(count for name, count in by_operation.items() if _is_attention(str(name)))
    return Floor(
        matrix=_matrix_rate(loaded),
        attention=_attention_rate(loaded),
        page_matrix=float(sum(by_operation.values()) - attention),
        page_attention=float(attention),
    )


def _is_attention(operation: str) -> bool:
    return "attention" in operation or "attn" in operation


def _matrix_rate(loaded: LoadedModel) -> float:
    side = 1024 if loaded.device.type == "cpu" else 8192
    left, right = (_random(loaded, side, side) for _ in range(2))
    return 2 * side**3 / _fastest(loaded, lambda: left @ right)


def _attention_rate(loaded: LoadedModel) -> float:
    heads, tokens, dim = 4, 3072, 64
    if loaded.device.type != "cpu":
        heads, dim = 64, 128
    query, key, value = (_random(loaded, 1, heads, tokens, dim) for _ in range(3))
    attend = torch.nn.functional.scaled_dot_product_attention
    return 4 * heads * tokens**2 * dim / _fastest(loaded, lambda: attend(query, key, value))


def _random(loaded: LoadedModel, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=loaded.device, dtype=next(loaded.model.parameters()).dtype)


@torch.inference_mode()
def _fastest(loaded: LoadedModel, work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of many runs: what the device can do."""

    def to_its_end() -> None:
        work()
        if loaded.device.type == "cuda":
            torch.cuda.synchronize()

    return min(times(to_its_end, _SECONDS))
