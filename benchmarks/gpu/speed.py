"""How fast is it: passes by batch, kernels by kind, products alone."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch._C._autograd import DeviceType
from torch.nn.functional import linear

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.stages import Found, attempt, collect_errors
from benchmarks.report import Row, Table
from pagevec.engine.backends.device import split_rows
from pagevec.engine.backends.packed import backend as packed

_BATCHES = (1, 2, 4, 8, 16, 22, 44)
_QUERIES = (1, 8, 32, 256)
_PROFILED = 22
_SHOWN = 20  # kernels by name
_BY_BATCH = {
    "pass of": "pass",
    "inputs/s": "inputs_per_second:.2f",
    "ms": "ms:.2f",
    "host ms until all is launched": "host_ms:.2f",
    "peak GB": "peak_gb:.2f",
}
_BY_KIND = {"kind": "kind", "ms": "ms:.2f", "share": "share:.1%", "kernels": "kernels"}
_BY_NAME = {"kernel": "kernel", "ms": "ms:.2f", "times": "kernels"}
_PRODUCTS = {"product": "product", "TFLOP/s": "tflops:.0f", "ms": "ms:.3f"}
# Words in the names of kernels; the first kind that has one counts.
_KINDS = {
    "attention": ("flash", "fmha", "attention"),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk", "::mm", "::addmm"),
    "norms": ("rms", "layer_norm", "layernorm", "vector_norm"),
    "copies": ("memcpy", "memset"),
    "gather and scatter": ("index", "gather", "scatter", "catarray"),
}


def measure_batches(bench: Bench) -> Found:
    """How fast is a pass, by the pages and queries in it, and how long does the host launch."""
    pages = bench.within_time(bench.pick(_BATCHES, (1, 2)))
    queries = bench.within_time(bench.pick(_QUERIES, (1, 2)))
    rows = [_measure(bench, f"{n} pages", bench.pages(n)) for n in pages]
    rows += [_measure(bench, f"{n} queries", bench.queries(n)) for n in queries]
    page, query = bench.pages(1)[0].tokens, bench.queries(1)[0].tokens
    note = (
        f"Pages of {bench.page_size[0]} x {bench.page_size[1]} pixels, {page} tokens each; {query} "
        f"tokens in a query; {bench.backend.info().dtype}. From prepared inputs to vectors on the "
        "host."
    )
    faults = collect_errors(rows, "pass")
    return Found({"batches": Table(_BY_BATCH, rows, note=note)}, faults)


def _measure(bench: Bench, name: str, batch: list[Any]) -> Row:
    def work() -> Row:
        bench.free()
        if not bench.emulated:
            torch.cuda.reset_peak_memory_stats()
        seconds = bench.time(lambda: bench.backend.forward(batch), rounds=7)
        return {
            "inputs_per_second": len(batch) / seconds,
            "ms": 1000 * seconds,
            "host_ms": 1000 * _time_launches(bench, batch),
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        }

    return attempt({"pass": name}, work)


def _time_launches(bench: Bench, batch: list[Any]) -> float:
    """Return the seconds until a pass has launched everything and waits for its vectors."""
    launched: list[float] = []

    def note(vectors: torch.Tensor, lengths: Sequence[int]) -> list[Any]:
        launched.append(time.perf_counter())
        return split_rows(vectors, lengths)

    bench.synchronize()
    with patch.object(packed, "split_rows", note):
        started = time.perf_counter()
        bench.backend.forward(batch)
    return launched[0] - started


def profile_pass(bench: Bench) -> Found:
    """Where does the device's time go in a pass, by kind of kernel."""
    from torch.profiler import ProfilerActivity, profile

    batch = bench.pages(bench.pick(_PROFILED, 2))
    bench.backend.forward(batch)
    bench.synchronize()
    activities = [ProfilerActivity.CPU]
    if not bench.emulated:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as taken:
        started = time.perf_counter()
        bench.backend.forward(batch)
        bench.synchronize()
        wall = time.perf_counter() - started
    kernels = read_kernels(taken.events(), bench.pick(DeviceType.CUDA, DeviceType.CPU))
    tables = sum_up_kernels(kernels, 1000 * wall)
    unable = ["kernels: what is shown are operators of the CPU"] if bench.emulated else []
    faults = [] if kernels else ["the profiler saw no kernel"]
    return Found(tables, faults, unable)


def read_kernels(events: Iterable[Any] | None, device: DeviceType) -> list[tuple[str, float]]:
    """Return name and milliseconds of each event of a profile on `device`."""
    return [
        (str(event.name), event.time_range.elapsed_us() / 1000)
        for event in events or ()
        if event.device_type == device
    ]


def name_kind(kernel: str) -> str:
    """Return the kind of a kernel, by its name; what has no kind is elementwise."""
    name = kernel.lower()
    found = (kind for kind, words in _KINDS.items() if any(word in name for word in words))
    return next(found, "elementwise")


def sum_up_kernels(kernels: list[tuple[str, float]], wall: float) -> dict[str, Table]:
    """Return tables by kind of kernel and by name.

    Args:
        kernels: name and milliseconds of each.
        wall: milliseconds of the whole pass.
    """
    by_kind: Counter[str] = Counter()
    by_name: defaultdict[str, list[float]] = defaultdict(list)
    for name, ms in kernels:
        by_kind[name_kind(name)] += ms  # type: ignore[assignment] # a Counter of float
        by_name[name[:100]].append(ms)
    counts = Counter(name_kind(name) for name, _ in kernels)
    rows: list[Row] = [
        {"kind": kind, "ms": ms, "share": ms / wall, "kernels": counts[kind]}
        for kind, ms in by_kind.most_common()
    ]
    busy = sum(ms for _, ms in kernels)
    rows.append({"kind": "all", "ms": busy, "share": busy / wall, "kernels": len(kernels)})
    longest = sorted(by_name.items(), key=lambda one: -sum(one[1]))[:_SHOWN]
    names: list[Row] = [
        {"kernel": name.replace("|", " "), "ms": sum(ms), "kernels": len(ms)}
        for name, ms in longest
    ]
    note = f"A pass took {wall:.1f} ms; the rest of it the device had nothing to do."
    return {"kinds": Table(_BY_KIND, rows, note=note), "kernels": Table(_BY_NAME, names)}


def measure_products(bench: Bench) -> Found:
    """How fast are the products of a pass alone, also at 3,420 columns in place of 3,424."""
    patches, tokens, side = bench.pick((22 * 2944, 22 * 743, 8192), (32, 16, 64))
    # Rows, columns of the input, how far apart its rows begin, columns of the output.
    shapes: list[tuple[str, int, int, int, int]] = [
        ("vision qkv", patches, 1280, 1280, 3840),
        ("vision out", patches, 1280, 1280, 1280),
        ("vision gate and up, 3,420", patches, 1280, 1280, 6840),
        ("vision gate and up, 3,424", patches, 1280, 1280, 6848),
        ("vision down, 3,420", patches, 3420, 6840, 1280),
        ("vision down, 3,424", patches, 3424, 6848, 1280),
        ("vision down, 3,456", patches, 3456, 6912, 1280),
        ("language qkv", tokens, 2048, 2048, 2560),
        ("language out", tokens, 2048, 2048, 2048),
        ("language gate and up", tokens, 2048, 2048, 22_016),
        ("language down", tokens, 11_008, 22_016, 2048),
        ("square of 8,192", side, side, side, side),
    ]
    rows = [
        attempt(
            {"product": f"{name}: {count} x {inner} x {outer}"},
            partial(_measure_product, bench, count, inner, step, outer),
        )
        for name, count, inner, step, outer in bench.within_time(shapes)
    ]
    copies = [attempt({"product": "copy"}, lambda: _measure_copy(bench))]
    tables = {
        "products": Table(_PRODUCTS, rows),
        "copy": Table({"": "product", "TB/s": "terabytes_per_second:.2f"}, copies),
    }
    return Found(tables, collect_errors([*rows, *copies], "product"))


def _measure_product(bench: Bench, count: int, inner: int, step: int, outer: int) -> Row:
    make: Callable[..., torch.Tensor] = torch.randn
    wide = make(count, step, dtype=torch.bfloat16, device=bench.device)
    weight = make(outer, inner, dtype=torch.bfloat16, device=bench.device)
    seconds = bench.time(lambda: linear(wide[:, :inner], weight), rounds=9)
    return {"tflops": 2 * count * inner * outer / seconds / 1e12, "ms": 1000 * seconds}


def _measure_copy(bench: Bench) -> Row:
    size = bench.pick(2**31, 2**10)
    source, target = (torch.zeros(size, dtype=torch.uint8, device=bench.device) for _ in range(2))
    seconds = bench.time(lambda: target.copy_(source), rounds=9)
    return {"terabytes_per_second": 2 * size / seconds / 1e12}
