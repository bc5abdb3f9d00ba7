"""Does it answer, and rightly: the device, the bundled model, the 3B architecture."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks import data
from benchmarks.gpu.bench import QUERY, Bench, copy_model
from benchmarks.gpu.stages import Found
from benchmarks.models import compare_vectors, make_settings
from benchmarks.report import Row, Table
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend
from pagevec.engine.backends.padded import PaddedBackend
from pagevec.engine.backends.self_check import LEAST_COSINE, embed_samples, mean_cosines
from pagevec.engine.models.registry import bundled_checkpoint
from pagevec.images import EncodedImage
from pagevec.types import MultiVector

_PACKAGES = (
    "torch", "transformers", "colpali-engine", "triton", "torchao", "flash-attn",
    "sentence-transformers",
)  # fmt: skip
_LEAST_IN_FLOAT16, _LEAST_IN_FLOAT32 = 0.999, 0.9999
# How much further from float32 than colpali-engine's own bfloat16 the packed pass may be.
_MORE, _SLACK = 1.5, 1e-4
_TEXTS = [QUERY, "x", "a longer passage " * 40]
_PAGES = [data.SIZES["A4"], (600, 400), (333, 777), data.SIZES["dot"], (600, 400)]
_SMALL_PAGES = [(140, 196), (28, 28)]
_SHORT_TEXTS = ["Which route?", "x"]
_NEARNESS = {
    "inputs": "inputs",
    "pass": "pass",
    "mean cosine": "mean_cosine:.6f",
    "smallest": "cosine:.6f",
    "equal signs": "signs:.2%",
}
Vectors = dict[str, list[MultiVector]]
"""Multi-vectors of `pages` and of `texts`."""


def describe_environment(bench: Bench) -> Found:
    """Which card is it, and which versions."""
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    facts: dict[str, object] = {
        "card": torch.cuda.get_device_name(),
        "compute capability": capability,
        "CUDA": torch.version.cuda,
    }
    unable = []
    if bench.emulated:
        unable.append("memory and driver: there is no card")
    else:
        free, total = torch.cuda.mem_get_info()
        facts |= {
            "GiB of memory": f"{total / 2**30:.1f}, {free / 2**30:.1f} free",
            "driver": _ask_driver(),
            "multiprocessors": torch.cuda.get_device_properties(0).multi_processor_count,
        }
    facts |= {name: _find_version(name) for name in _PACKAGES}
    rows = [{"fact": name, "value": value} for name, value in facts.items()]
    return Found({"facts": Table({"": "fact", "value": "value"}, rows, words=2)}, unable=unable)


def check_answers(bench: Bench) -> Found:
    """Do the bundled model's vectors agree with those of the CPU in float32."""
    inputs = _make_inputs(bench, len(_PAGES))
    checkpoint = bundled_checkpoint()
    exact = _embed(load(make_settings(checkpoint, "cpu", forward="padded")), inputs)
    ours = load(make_settings(checkpoint, "cuda"))
    info = ours.info()
    ours_name = f"{info.forward}, {info.dtype}"
    passes = {
        f"{ours_name}, one batch": _embed(ours, inputs),
        f"{ours_name}, each alone": _embed(ours, inputs, alone=True),
    }
    own = load(make_settings(checkpoint, "cuda", forward="padded"))
    own_name = f"padded, {own.info().dtype}, each alone"
    passes[own_name] = _embed(own, inputs, alone=True)
    for dtype in ("float16", "float32"):
        other = load(make_settings(checkpoint, "cuda", forward="packed", dtype=dtype))
        passes[f"packed, {dtype}, one batch"] = _embed(other, inputs)
    rows = {name: list(_compare(name, vectors, exact)) for name, vectors in passes.items()}
    faults = [
        *_list_worse(rows[f"{ours_name}, one batch"], rows[own_name]),
        *_list_worse(rows[f"{ours_name}, each alone"], rows[own_name]),
        *_list_far(rows["packed, float16, one batch"], _LEAST_IN_FLOAT16),
        *_list_far(rows["packed, float32, one batch"], _LEAST_IN_FLOAT32),
    ]
    if info.forward != "packed":
        faults.append(f"the packed pass does not serve: it {info.fallback}")
    of_page, of_query = mean_cosines(embed_samples(ours), embed_samples(own))
    note = (
        "Beside colpali-engine's own pass on the CPU in float32. The self-check of the start, "
        f"packed beside padded: {of_page:.4f} for its page, {of_query:.4f} for its query, at least "
        f"{LEAST_COSINE} is due."
    )
    del ours, own, other
    bench.free()
    table = Table(_NEARNESS, [row for each in rows.values() for row in each], words=2, note=note)
    return Found({"answers": table}, faults)


def _list_far(rows: Sequence[Row], least: float) -> list[str]:
    return [
        f"{row['inputs']}, {row['pass']}: mean cosine {row['mean_cosine']:.5f}"
        for row in rows
        if not row["mean_cosine"] > least
    ]


def _list_worse(ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    """Say where our pass is further from float32 than colpali-engine's own in the same dtype."""
    return [
        f"{one['inputs']}, {one['pass']}: 1 - mean cosine {1 - one['mean_cosine']:.1e}, "
        f"colpali-engine's own {1 - other['mean_cosine']:.1e}"
        for one, other in zip(ours, theirs, strict=True)
        if not 1 - one["mean_cosine"] < _MORE * (1 - other["mean_cosine"]) + _SLACK
    ]


def check_parity(bench: Bench) -> Found:
    """Is the packed 3B pass as near to float32 as colpali-engine's own in bfloat16."""
    inputs = _make_inputs(bench, 3)
    loaded = bench.loaded
    own = _embed(PaddedBackend(loaded), inputs, alone=True)
    model = copy_model(loaded.model, lambda one: one.float())
    exact = _embed(PaddedBackend(replace(loaded, model=model)), inputs, alone=True)
    del model
    bench.free()
    rows = [
        *_compare("packed, bfloat16", _embed(bench.backend, inputs), exact),
        *_compare("colpali-engine, bfloat16", own, exact),
    ]
    faults = _list_worse(rows[:2], rows[2:])
    note = "Random weights; beside colpali-engine's own pass in float32, each input alone."
    return Found({"parity": Table(_NEARNESS, rows, words=2, note=note)}, faults)


@dataclass(frozen=True)
class Inputs:
    """What all passes embed."""

    images: list[EncodedImage]
    texts: list[str]


def _make_inputs(bench: Bench, pages: int) -> Inputs:
    sizes = bench.pick(_PAGES[:pages], _SMALL_PAGES)
    images = [image for size in sizes for image in data.make_images(1, size)]
    return Inputs(images, bench.pick(_TEXTS, _SHORT_TEXTS))


def _embed(backend: Backend[Any], inputs: Inputs, alone: bool = False) -> Vectors:
    batches = {
        "pages": [backend.prepare_page(image) for image in inputs.images],
        "texts": list(backend.prepare_texts(inputs.texts)),
    }
    if alone:
        return {
            kind: [backend.forward([one])[0] for one in batch] for kind, batch in batches.items()
        }
    return {kind: backend.forward(batch) for kind, batch in batches.items()}


def _compare(name: str, vectors: Vectors, exact: Vectors) -> Iterator[Row]:
    for kind, theirs in exact.items():
        yield {"inputs": kind, "pass": name, **asdict(compare_vectors(vectors[kind], theirs))}


def _ask_driver() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "nvidia-smi is not there"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    return done.stdout.strip()


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
