"""Attention over a pack, at the shapes of all packed families, beside its definition."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.stages import Found
from benchmarks.report import Row, Table
from pagevec.engine.backends.packed.segments import Segments, attend

_LARGEST_ERROR = 1e-2  # of attention in bfloat16, beside float64
_CASES = {
    "case": "case",
    "sequences": "sequences",
    "relative error": "error:.1e",
    "beside NaN": "beside_nan",
}


@dataclass(frozen=True)
class Case:
    """Attention as a family has it.

    Attributes:
        name: of the case.
        lengths: tokens of the sequences.
        heads: of the query.
        keys: heads of key and value.
        dim: of a head.
        causal: as in the language models; else as in the vision towers.
    """

    name: str
    lengths: Sequence[int]
    heads: int
    keys: int
    dim: int
    causal: bool = False


_WINDOWS = [64] * 40 + [48] * 8 + [16] * 4
_A4S = [2944, 1200, 4]
_TOKENS = [743, 25, 1, 129, 311]
CASES = (
    Case("ColQwen2.5 windows, d80", _WINDOWS, 16, 16, 80),
    Case("ColQwen2 to 2.5 pages, d80", _A4S, 16, 16, 80),
    Case("ColQwen2 language, d128", _TOKENS, 12, 2, 128, causal=True),
    Case("ColQwen2.5 language, d128", _TOKENS, 16, 2, 128, causal=True),
    Case("ColQwen3 language, d128", _TOKENS, 32, 8, 128, causal=True),
    Case("ColQwen3 pages, d64", _A4S, 16, 16, 64),
    Case("ColQwen3 pages, d72", _A4S, 16, 16, 72),
    Case("bundled windows, d32", [576] * 4 + [288, 96], 4, 4, 32),
    Case("bundled language, d48", _TOKENS, 4, 2, 48, causal=True),
)
"""The shapes of all packed families."""


def check_kernels(bench: Bench) -> Found:
    """Is attention over a pack right, at the real shapes and strides, and blind to neighbours."""
    cases = CASES if not bench.emulated else [_make_small(one) for one in CASES]
    rows = [_check_case(case, bench.device) for case in bench.within_time(cases)]
    faults = [
        f"{row['case']}: relative error {row['error']:.1e}, beside NaN {row['beside_nan']}"
        for row in rows
        if not row["error"] < _LARGEST_ERROR or row["beside_nan"] == "wrong"
    ]
    note = "Beside float64. NaN in a neighbour must change nothing: `equal` means every bit."
    unable = ["the kernel itself: the emulated one is float64"] if bench.emulated else []
    return Found({"kernels": Table(_CASES, rows, note=note)}, faults, unable)


def _make_small(case: Case) -> Case:
    groups = case.heads // case.keys
    return replace(case, lengths=[9, 4, 1, 4], heads=2 * groups, keys=2)


def _check_case(case: Case, device: torch.device) -> Row:
    query, key, value = make_qkv(case, device)
    segments = Segments(tuple(case.lengths), device)
    attended = attend(query, key, value, segments, causal=case.causal)
    exact = attend_exactly(query, key, value, case)
    error = (attended.double() - exact).norm() / exact.norm()
    return {
        "case": case.name,
        "sequences": len(case.lengths),
        "error": error.item(),
        "beside_nan": _poison(case, (query, key, value), segments, attended),
    }


def make_qkv(case: Case, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value with the strides that the packed backend gives them."""
    tokens, shape = sum(case.lengths), (case.heads + 2 * case.keys, case.dim)
    qkv = torch.randn(tokens, *shape).to(device, torch.bfloat16)
    if case.causal:
        rotated = qkv[:, : case.heads + case.keys].contiguous()
        query, key = torch.split(rotated, [case.heads, case.keys], dim=1)
        return query, key, qkv[:, -case.keys :]
    parts = qkv.view(tokens, 3, case.heads, case.dim)
    query, key = parts[:, :2].contiguous().unbind(1)
    return query, key, parts[:, 2]


def attend_exactly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, case: Case
) -> torch.Tensor:
    """Return attention within each sequence by its definition: float64 (tokens, heads x dim)."""
    attended = []
    sequences = (torch.split(one, list(case.lengths)) for one in (query, key, value))
    for parts in zip(*sequences, strict=True):
        q, k, v = (part.double().transpose(0, 1) for part in parts)
        k, v = (one.repeat_interleave(case.heads // case.keys, 0) for one in (k, v))
        scores = q @ k.transpose(1, 2) / case.dim**0.5
        if case.causal:
            later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1).to(scores.device)
            scores = scores.masked_fill(later, float("-inf"))
        attended.append((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(attended)


def _poison(
    case: Case, qkv: tuple[torch.Tensor, ...], segments: Segments, before: torch.Tensor
) -> str:
    """Fill every second sequence with NaN: the others must stay as they are."""
    starts = [sum(case.lengths[:place]) for place in range(len(case.lengths))]
    query, key, value = poisoned = [one.clone() for one in qkv]
    kept = torch.ones(len(before), dtype=torch.bool)
    for start, length in list(zip(starts, case.lengths, strict=True))[::2]:
        kept[start : start + length] = False
        for one in poisoned:
            one[start : start + length] = float("nan")
    after = attend(query, key, value, segments, causal=case.causal)
    one, other = after.cpu()[kept], before.cpu()[kept]
    if torch.equal(one, other):
        return "equal"
    near = bool((one - other).float().norm() < _LARGEST_ERROR * other.float().norm())
    return "near" if near else "wrong"
