"""What a pass of the 3B model does on a GPU, counted without one, and how long it would take."""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import data
from benchmarks.emulated_cuda import Counts, EmulatedCuda, emulated_cuda
from benchmarks.full_size import make_config, make_processor
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.models.compat import replace_patch_convolutions
from pagevec.engine.models.loader import LoadedModel
from pagevec.engine.models.registry import find_family
from pagevec.types import ModelInfo

_QUERY = "Which route carried the most passengers in the winter of 2024?"
_ATTENTION = "_flash_attention_forward"
# Shares of what the data sheet says: cuBLAS reached 0.62 of an H100's in products of these shapes.
_OF_PRODUCTS, _OF_ATTENTION, _OF_BANDWIDTH = 0.62, 0.4, 0.8


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet.

    Attributes:
        name: of the card.
        tflops: dense products in bfloat16, 1e12 operations a second.
        bandwidth: of its memory, 1e12 bytes a second.
    """

    name: str
    tflops: float
    bandwidth: float

    def estimate(self, counts: Counts) -> float:
        """Return the seconds of what was counted, one operation after the other."""
        attention = counts.flop[_ATTENTION]
        products = counts.flop.total() - attention
        peak = 1e12 * self.tflops
        moved = counts.elementwise_bytes.total() / (1e12 * self.bandwidth * _OF_BANDWIDTH)
        return products / (peak * _OF_PRODUCTS) + attention / (peak * _OF_ATTENTION) + moved


CARDS = (
    Card("A10G", 70, 0.6),
    Card("L4", 121, 0.3),
    Card("A100 80 GB", 312, 2.04),
    Card("H100 SXM", 989, 3.35),
    Card("H200", 989, 4.8),
)


def measure(pages: int) -> Measurement:
    """Count launches, bytes and operations of a pass of A4 pages, and of a query.

    Estimates assume 62 % of a data sheet's operations in matrix products, 40 % in attention, 80 %
    of its bandwidth in everything else, and a host that launches ahead of the device.
    """
    with full_size_backend() as (cuda, backend):
        [image] = data.make_images(1)
        page, [query] = backend.prepare_page(image), backend.prepare_texts([_QUERY])
        counts = {
            f"{pages} A4 pages": count(cuda, backend, [page] * pages),
            "a query": count(cuda, backend, [query]),
        }
    of_pages, *_ = counts.values()
    tables = {
        "totals": Table(_TOTALS, [_sum_up(name, one) for name, one in counts.items()]),
        "elementwise": Table(_ELEMENTWISE, list(_list_elementwise(of_pages))),
        "estimates": Table(
            {"card": "card", "pages/s": "pages_per_second:.0f", "ms": "ms:.0f"},
            [_estimate(card, of_pages, pages) for card in CARDS],
        ),
    }
    setup = {"model": "3B architecture, bfloat16, shapes only", "tokens of a page": page.tokens}
    return Measurement("counts", setup, tables)


def count(cuda: EmulatedCuda, backend: PackedBackend, batch: list[Any]) -> Counts:
    """Return what a pass of `batch` does, its positions being cached."""
    backend.forward(batch[:1])
    cuda.counts = Counts()
    backend.forward(batch)
    return copy.deepcopy(cuda.counts)


@contextmanager
def full_size_backend() -> Iterator[tuple[EmulatedCuda, PackedBackend]]:
    """Yield a device without values, and the packed backend of the 3B architecture on it."""
    processor = make_processor()
    from colpali_engine.models import ColQwen2_5

    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = ColQwen2_5(make_config(processor.tokenizer))
    finally:
        torch.set_default_dtype(torch.float32)
    model.requires_grad_(False)
    replace_patch_convolutions(model)
    info = ModelInfo(model="3B", family="colqwen2_5", dim=128, device="cuda:0", dtype="bfloat16")
    with emulated_cuda(shapes_only=True) as cuda:
        cuda.move(model.eval())
        loaded = LoadedModel(
            model=model,
            processor=processor,
            text_processor=copy.deepcopy(processor),
            family=find_family("colqwen2_5"),
            info=info,
            device=torch.device("cuda:0"),
        )
        yield cuda, PackedBackend(loaded)


_TOTALS = {
    "a pass of": "pass",
    "launches": "launches",
    "elementwise": "elementwise",
    "products": "products",
    "attentions": "attentions",
    "TFLOP": "tflop:.2f",
    "GB elementwise": "gigabytes:.1f",
    "synchronisations": "synchronisations",
    "copies to the device": "uploads",
}
_ELEMENTWISE = {"operation": "operation", "launches": "launches", "GB": "gigabytes:.1f"}


def _sum_up(name: str, counts: Counts) -> Row:
    elementwise = {one: counts.launches[one] for one in counts.elementwise_bytes}
    products = sum(number for one, number in counts.launches.items() if one in _products(counts))
    return {
        "pass": name,
        "launches": counts.launches.total(),
        "elementwise": sum(elementwise.values()),
        "products": products,
        "attentions": counts.launches[_ATTENTION],
        "tflop": counts.flop.total() / 1e12,
        "gigabytes": counts.elementwise_bytes.total() / 1e9,
        "synchronisations": counts.synchronisations.total(),
        "uploads": len(counts.uploads),
    }


def _products(counts: Counts) -> set[str]:
    return set(counts.flop) - {_ATTENTION}


def _list_elementwise(counts: Counts) -> Iterator[Row]:
    for name, moved in Counter(counts.elementwise_bytes).most_common():
        launches = counts.launches[name]
        yield {"operation": name, "launches": launches, "gigabytes": moved / 1e9}


def _estimate(card: Card, counts: Counts, pages: int) -> Row:
    seconds = card.estimate(counts)
    return {"card": card.name, "pages_per_second": pages / seconds, "ms": 1000 * seconds}


main = make_command(measure, number_option("--pages", 21))

if __name__ == "__main__":
    main()
