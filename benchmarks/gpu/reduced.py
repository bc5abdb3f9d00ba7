"""FP8 and int8 of the package itself, where torchao is installed."""

from dataclasses import asdict, replace
from functools import partial

from benchmarks.gpu.bench import Bench, copy_model
from benchmarks.gpu.stages import Found, attempt, collect_errors
from benchmarks.models import compare_vectors
from benchmarks.report import Row, Table
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.models.precision import has_torchao, reduce_precision, require_precision

_PAGES = 22
_COLUMNS = {
    "precision": "precision",
    "pages/s": "pages_per_second:.2f",
    "x full": "ratio:.2f",
    "mean cosine": "mean_cosine:.4f",
    "smallest": "cosine:.4f",
}


def measure_precisions(bench: Bench) -> Found:
    """What do FP8 and int8 by torchao bring, and what do they cost."""
    if not has_torchao():
        return Found(unable=["FP8 and int8: torchao is not installed"])
    if bench.emulated:
        return Found(unable=["FP8 and int8: torchao's tensors cannot stand on an emulated device"])
    batch = bench.pages(_PAGES)
    full = bench.time(lambda: bench.backend.forward(batch))
    rows: list[Row] = [{"precision": "full", "pages_per_second": _PAGES / full, "ratio": 1.0}]
    for precision in bench.within_time(("fp8", "int8")):
        rows.append(attempt({"precision": precision}, partial(_measure, bench, precision, full)))
        bench.free()
    note = "Random weights: the loss on a trained model is for benchmarks.precision to say."
    return Found({"rows": Table(_COLUMNS, rows, note=note)}, collect_errors(rows, "precision"))


def _measure(bench: Bench, precision: str, full: float) -> Row:
    loaded, batch = bench.loaded, bench.pages(_PAGES)
    dtype = next(loaded.model.parameters()).dtype
    require_precision(precision, bench.device, dtype)
    model = copy_model(loaded.model, lambda one: one.clone())
    reduce_precision(model, precision, bench.device)
    info = replace(loaded.info, precision=precision)
    backend = PackedBackend(replace(loaded, model=model, info=info))
    seconds = bench.time(lambda: backend.forward(batch), rounds=3)
    near = compare_vectors(backend.forward(batch), bench.backend.forward(batch))
    return {"pages_per_second": _PAGES / seconds, "ratio": full / seconds, **asdict(near)}
