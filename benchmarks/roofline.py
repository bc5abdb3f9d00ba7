"""The roofline: how fast the device is, measured, and how many pages it allows at most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import data
from benchmarks.machine import time_for
from pagevec.engine.backends.base import Backend

_SECONDS = 1.0


def _count_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count both products of an attention, (batch, heads, tokens, dim); causal ones as full."""
    batch, heads, tokens, dim = query
    return int(2 * batch * heads * tokens * key[2] * (dim + value[3]))


# The only attention whose operations torch does not count.
_ATTENTION_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_attention}


@dataclass(frozen=True)
class Roofline:
    """What the device does at most, and what a page of A4 needs.

    Attributes:
        matrix: operations per second of matrix products.
        attention: operations per second of attention.
        page_matrix: operations of a page's matrix products.
        page_attention: operations of a page's attention.
    """

    matrix: float
    attention: float
    page_matrix: float
    page_attention: float

    @property
    def pages_per_second(self) -> float:
        """Pages of A4 that no engine can exceed on this device."""
        return 1 / (self.page_matrix / self.matrix + self.page_attention / self.attention)

    def describe(self, reached: float) -> str:
        """Say how near `reached` pages/s come to the roofline."""
        return (
            f"matrix products {self.matrix / 1e9:.0f} GFLOP/s, attention "
            f"{self.attention / 1e9:.0f} GFLOP/s; a page of A4 takes "
            f"{self.page_matrix / 1e9:.1f} and {self.page_attention / 1e9:.1f} GFLOP: "
            f"at most {self.pages_per_second:.2f} pages/s; "
            f"reached {reached:.2f} ({reached / self.pages_per_second:.0%})"
        )


def measure_roofline(backend: Backend[Any]) -> Roofline:
    """Measure the device, and count the operations of one page of A4."""
    [page] = data.make_images(1)
    prepared = backend.prepare_page(page)
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION_ON_CPU) as counter:
        backend.forward([prepared])
    counts: dict[Any, int] = counter.get_flop_counts()["Global"]
    attention = sum(count for name, count in counts.items() if _is_attention(str(name)))
    info = backend.info()
    device, dtype = torch.device(info.device), getattr(torch, info.dtype)
    return Roofline(
        matrix=_measure_matrix(device, dtype),
        attention=_measure_attention(device, dtype),
        page_matrix=float(sum(counts.values()) - attention),
        page_attention=float(attention),
    )


def _is_attention(operation: str) -> bool:
    return "attention" in operation or "attn" in operation


def _measure_matrix(device: torch.device, dtype: torch.dtype) -> float:
    side = 1024 if device.type == "cpu" else 8192
    left, right = torch.randn((2, side, side), device=device, dtype=dtype)
    return 2 * side**3 / _fastest(device, lambda: left @ right)


def _measure_attention(device: torch.device, dtype: torch.dtype) -> float:
    heads, tokens, dim = (4, 3072, 64) if device.type == "cpu" else (64, 3072, 128)
    query, key, value = torch.randn((3, 1, heads, tokens, dim), device=device, dtype=dtype)
    attend = torch.nn.functional.scaled_dot_product_attention
    return 4 * heads * tokens**2 * dim / _fastest(device, lambda: attend(query, key, value))


@torch.inference_mode()
def _fastest(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of many runs: what the device can do."""

    def run_to_the_end() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return min(time_for(_SECONDS, run_to_the_end))
