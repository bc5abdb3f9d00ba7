"""The run for the day a GPU is at hand, dry: every stage, with small shapes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.emulated_cuda import emulated_cuda
from benchmarks.gpu.__main__ import STAGES, main
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.judge import list_candidates
from benchmarks.gpu.speed import name_kind, sum_up_kernels
from benchmarks.gpu.stages import DRY, Found, Stage, run_stages
from benchmarks.report import Table
from click.testing import CliRunner

QUICK = [one.name for one in STAGES if one.name not in ("service", "peers")]


def dry_run(folder: Path, *options: str) -> dict[str, Any]:
    """Return the report of a dry run by the name of its stages; nothing may be wrong."""
    done = CliRunner().invoke(main, ["--emulate", "--out", str(folder), *options])
    assert done.exit_code == 0, done.output
    report = json.loads((folder / "gpu.json").read_text())
    assert report["dry_run"] is True
    assert (folder / "gpu.md").read_text().startswith(DRY)
    stages = {one["stage"]: one for one in report["stages"]}
    assert all(one["state"] == "done" and not one["faults"] for one in stages.values())
    return stages


@pytest.mark.long
def test_dry_run(tmp_path: Path) -> None:
    """Each stage within this process runs, judges what it can, and says what it cannot."""
    stages = dry_run(tmp_path, "--only", ",".join(QUICK))
    assert list(stages) == QUICK
    answers = stages["answers"]["answers"]
    assert [one["pass"] for one in answers[::2]] == [
        "packed, bfloat16, one batch",
        "packed, bfloat16, each alone",
        "padded, bfloat16, each alone",
        "packed, float16, one batch",
        "packed, float32, one batch",
    ]
    assert min(one["mean_cosine"] for one in answers) > 0.999
    assert len(stages["kernels"]["kernels"]) == 9
    assert {one["beside_nan"] for one in stages["kernels"]["kernels"]} == {"equal"}
    assert len(stages["parity"]["parity"]) == 4
    assert [one["pass"] for one in stages["batches"]["batches"]] == [
        "1 pages", "2 pages", "1 queries", "2 queries",
    ]  # fmt: skip
    assert len(stages["products"]["products"]) == 12
    judged = {one["candidate"]: one for one in stages["candidates"]["candidates"]}
    assert list(judged) == [one.name for one in list_candidates(Bench(1, None))]
    assert all(one["cosine"] > 0.98 and "error" not in one for one in judged.values())
    [memory] = stages["memory"]["memory"]
    assert memory["fits"] < memory["asked"]
    assert (memory["pages"], memory["state"]) == (8, "ready")
    told = [name for name, one in stages.items() if one["unable"]]
    assert told == [
        "environment", "kernels", "profile", "candidates", "memory", "precision",
    ]  # fmt: skip


@pytest.mark.long
def test_dry_run_of_services(tmp_path: Path) -> None:
    """The service in a process of its own, and all peers, have their rates."""
    stages = dry_run(tmp_path, "--only", "service,peers")
    engine, served = stages["service"]["service"]
    assert min(engine["pages_per_second"], served["pages_per_second"]) > 0
    assert served["share"] == pytest.approx(served["pages_per_second"] / engine["pages_per_second"])
    rates = {one["engine"]: one["pages_per_second"] for one in stages["peers"]["rates"]}
    assert {"pagevec", "colpali-engine, sdpa, batch 4"} < set(rates)
    assert min(rates.values()) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """No stage runs, and the message names the dry run."""
    done = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "--emulate" in done.output
    assert not list(tmp_path.iterdir())


def test_an_unknown_stage() -> None:
    """The message lists what there is."""
    done = CliRunner().invoke(main, ["--emulate", "--only", "speed"])
    assert done.exit_code == 2
    assert "'speed'" in done.output
    assert "candidates" in done.output


def test_a_stage_fails_alone(tmp_path: Path) -> None:
    """Its error is kept, the next stage runs, and what came before is on disk already."""
    on_disk: list[str] = []

    def fail(bench: Bench) -> Found:
        """Fails."""
        raise RuntimeError("CUDA error: an illegal memory access")

    def look(bench: Bench) -> Found:
        """Looks at the report."""
        on_disk.append((tmp_path / "gpu.json").read_text())
        return Found({"rows": Table({"a": "a"}, [{"a": 1}])}, faults=["too slow"])

    with emulated_cuda() as cuda:
        bench = Bench(60, cuda)
        outcomes = run_stages([Stage("first", fail), Stage("second", look)], bench, tmp_path)
    assert [one.state for one in outcomes] == ["failed", "done"]
    assert "illegal memory access" in on_disk[0]
    assert "in fail" in json.loads(on_disk[0])["stages"][0]["trace"]
    printed = (tmp_path / "gpu.md").read_text()
    assert "failed: `RuntimeError: CUDA error: an illegal memory access`" in printed
    assert "**wrong**: too slow" in printed


def test_no_stage_begins_when_the_time_is_up(tmp_path: Path) -> None:
    """The report says which were skipped."""
    with emulated_cuda() as cuda:
        bench = Bench(0, cuda)
        [outcome] = run_stages(STAGES[:1], bench, tmp_path)
        assert list(bench.within_time(range(3))) == []
    assert outcome.state == "skipped"
    assert "no time left" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128>>", "attention"),
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "products"),
        ("void at::native::vectorized_layer_norm_kernel<c10::BFloat16>", "norms"),
        ("Memcpy HtoD (Pageable -> Device)", "copies"),
        ("void at::native::index_elementwise_kernel<128, 4>", "gather and scatter"),
        ("void at::native::vectorized_elementwise_kernel<8, silu_kernel>", "elementwise"),
    ],
)
def test_kind_of_a_kernel(kernel: str, kind: str) -> None:
    """Kernels are told apart by their names."""
    assert name_kind(kernel) == kind


def test_kernels_are_summed_up() -> None:
    """Milliseconds, shares of the wall time, and numbers, by kind and by name."""
    kernels = [("flash_fwd", 2.0), ("gemm_a", 3.0), ("gemm_a", 1.0), ("silu", 1.0)]
    tables = sum_up_kernels(kernels, wall=10.0)
    rows = {one["kind"]: (one["ms"], one["share"], one["kernels"]) for one in tables["kinds"].rows}
    assert rows["products"] == (4.0, 0.4, 2)
    assert rows["all"] == (7.0, 0.7, 4)
    assert tables["kernels"].rows[0] == {"kernel": "gemm_a", "ms": 4.0, "kernels": 2}
