"""Everything that waits for a GPU, in one run: is it right, how fast is it, what would help."""

from contextlib import ExitStack
from pathlib import Path

import click
import torch

from benchmarks.emulated_cuda import emulated_cuda
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.correctness import (
    check_answers,
    check_parity,
    describe_environment,
)
from benchmarks.gpu.judge import judge_candidates
from benchmarks.gpu.kernels import check_kernels
from benchmarks.gpu.reduced import measure_precisions
from benchmarks.gpu.service import climb_down, compare_peers, measure_service
from benchmarks.gpu.speed import measure_batches, measure_products, profile_pass
from benchmarks.gpu.stages import Stage, run_stages, show_markdown

STAGES = (
    Stage("environment", describe_environment),
    Stage("answers", check_answers),
    Stage("kernels", check_kernels),
    Stage("parity", check_parity),
    Stage("batches", measure_batches),
    Stage("profile", profile_pass),
    Stage("products", measure_products),
    Stage("candidates", judge_candidates),
    Stage("service", measure_service),
    Stage("peers", compare_peers),
    Stage("memory", climb_down),
    Stage("precision", measure_precisions),
)
"""In the order of worth: what comes last may find no time left."""


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Folder for gpu.json and gpu.md, which are written after each stage.",
)
@click.option(
    "--seconds", type=float, default=500.0, show_default=True, help="No stage begins later."
)
@click.option("--only", default="", help=f"Stages: {', '.join(one.name for one in STAGES)}.")
@click.option("--emulate", is_flag=True, help="A dry run with small shapes, without a GPU.")
def main(folder: Path, seconds: float, only: str, emulate: bool) -> None:
    """Check and time the CUDA path on this machine's GPU; nothing is downloaded."""
    chosen = _choose(only)
    if not (emulate or torch.cuda.is_available()):
        raise click.ClickException("torch finds no CUDA device here: --emulate is a dry run")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        cuda = None
        if emulate:
            # Small products take longer on several cores than on one.
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
            cuda = stack.enter_context(emulated_cuda())
        bench = Bench(seconds, cuda)
        stack.callback(bench.close)
        outcomes = run_stages(chosen, bench, folder)
        click.echo(f"\n{show_markdown(outcomes, bench)}")
    failed = [one.stage for one in outcomes if one.state == "failed" or one.found.faults]
    if failed:
        raise click.ClickException(f"failed, or found something wrong: {', '.join(failed)}")


def _choose(only: str) -> list[Stage]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {one.name: one for one in STAGES}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no stage {name!r}; there are {', '.join(known)}")
    return [one for one in STAGES if not names or one.name in names]


if __name__ == "__main__":
    main()
