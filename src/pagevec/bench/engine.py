"""`python -m pagevec.bench engine`: pages a second, beside what the device can do at most."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from pagevec.bench import inputs
from pagevec.bench.machine import machine
from pagevec.bench.models import chosen_model, model_options
from pagevec.engine.loader import LoadedModel, load
from pagevec.engine.local import LocalEmbedder
from pagevec.engine.runner import runner_of
from pagevec.images import EncodedImage, read_image
from pagevec.settings import Settings

_SIZES = {"A4": (1240, 1754), "half of A4": (877, 1240), "receipt": (400, 1200), "dot": (28, 28)}
_GROWTH = (10, 100, 1000, 10_000)
_SMALL = (140, 196)
_MIB = 2**20
_SECONDS = 2.0


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
    """What the device does at most, measured, and what a page of A4 needs of it.

    Attributes:
        matrix, attention: operations per second of the one and the other.
        page_matrix, page_attention: operations of a page.
    """

    matrix: float
    attention: float
    page_matrix: float
    page_attention: float

    @property
    def pages_per_second(self) -> float:
        """The pages of A4 that no engine passes on this device."""
        return 1 / (self.page_matrix / self.matrix + self.page_attention / self.attention)


@dataclass(frozen=True)
class Speed:
    """Pages of one size, so many at once.

    Attributes:
        tokens: of a page; forward_ms: of the model, for each page; prepare_ms: of one thread.
        memory_mib: of the process, or of the GPU's allocator.
    """

    page: str
    tokens: int
    pages: int
    pages_per_second: float
    forward_ms: float
    prepare_ms: float
    memory_mib: float


@dataclass(frozen=True)
class EngineReport:
    """All figures of one run."""

    machine: dict[str, str | int]
    setup: dict[str, str | int]
    floor: Floor
    speeds: list[Speed]

    def markdown(self) -> str:
        """Return the table, the floor, and what it was measured on."""
        head = "| page | tokens | pages | pages/s | tokens/s | forward ms | prepare ms | MiB |"
        rows = [
            f"| {one.page} | {one.tokens} | {one.pages} | {one.pages_per_second:.2f} |"
            f" {one.pages_per_second * one.tokens:.0f} | {one.forward_ms:.1f} |"
            f" {one.prepare_ms:.1f} | {one.memory_mib:.0f} |"
            for one in self.speeds
        ]
        best = max(one.pages_per_second for one in self.speeds if one.page == "A4")
        floor = self.floor
        told = (
            f"matrix products {floor.matrix / 1e9:.0f} GFLOP/s, attention "
            f"{floor.attention / 1e9:.0f} GFLOP/s; a page of A4 is "
            f"{floor.page_matrix / 1e9:.1f} and {floor.page_attention / 1e9:.1f} GFLOP: "
            f"no more than {floor.pages_per_second:.2f} pages/s; "
            f"reached {best:.2f} ({best / floor.pages_per_second:.0%})"
        )
        facts = ", ".join(f"{name} {value}" for name, value in (self.machine | self.setup).items())
        return "\n".join([head, "| --- |" + " ---: |" * 7, *rows, "", told, facts])


@click.command("engine")
@model_options
@click.option("--pages", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--growth", is_flag=True, help="Also 10 to 10,000 small pages, one request each.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path))
def command(
    model: Path | None,
    full_size: Path | None,
    device: str,
    pages: int,
    growth: bool,
    file: Path | None,
) -> None:
    """Measure the engine alone by page size, and the device's own rates beside it."""
    report = measure(chosen_model(model, full_size), device, pages, growth)
    if file is not None:
        file.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    click.echo(report.markdown())


def measure(checkpoint: Path, device: str, pages: int, growth: bool) -> EngineReport:
    """Measure the model in `checkpoint` on `device` with so many pages of each size."""
    settings = Settings(
        _env_file=None, model=str(checkpoint), device=device, max_queued_inputs=max(_GROWTH)
    )
    loaded = load(settings)
    floor = floor_of(loaded)
    engine = LocalEmbedder.of(settings, lambda: loaded)
    engine.wait_until_ready()
    speeds = [_speed(engine, name, _pages(size, pages)) for name, size in _SIZES.items()]
    for count in _GROWTH if growth else ():
        speeds.append(_speed(engine, "small", _pages(_SMALL, 10) * (count // 10)))
    engine.close()
    setup: dict[str, str | int] = {
        "model": checkpoint.name,
        "device": loaded.info.device,
        "dtype": loaded.info.dtype,
    }
    return EngineReport(machine(), setup, floor, speeds)


def floor_of(loaded: LoadedModel) -> Floor:
    """Measure the device, and count the operations of one page of A4."""
    [page] = _pages(_SIZES["A4"], 1)
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
    return min(_times(loaded, work))


def _times(loaded: LoadedModel, work: Callable[[], object]) -> Iterator[float]:
    end = time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < end:
        work()
        if loaded.device.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - started


def _pages(size: tuple[int, int], count: int) -> list[EncodedImage]:
    return [read_image(file) for file in inputs.make_pages(count, size)]


def _speed(engine: LocalEmbedder, name: str, pages: list[EncodedImage]) -> Speed:
    started = time.perf_counter()
    before = engine.health().busy_seconds
    embedded = engine.embed(pages).result()
    seconds = time.perf_counter() - started
    busy = engine.health().busy_seconds - before
    on_gpu = engine.info.device.startswith("cuda")
    memory = engine.health().memory.peak if on_gpu else psutil.Process().memory_info().rss
    return Speed(
        page=name,
        tokens=embedded.tokens // len(pages),
        pages=len(pages),
        pages_per_second=len(pages) / seconds,
        forward_ms=1000 * busy / len(pages),
        prepare_ms=1000 * embedded.timings.prepare / len(pages),
        memory_mib=memory / _MIB,
    )
