"""`pagevec cost`: what pages cost on Modal."""

import click

from pagevec.commands import with_output
from pagevec.deploy.modal.gpus import Gpu
from pagevec.deploy.modal.prices import AS_OF, GPU_SECOND, SOURCE, second


@click.command("cost")
@click.option(
    "--pages-per-second",
    "measured",
    multiple=True,
    metavar="[GPU=]RATE",
    help="Measured pages/s, such as A10G=4.2; repeatable. Without a GPU it counts for every kind.",
)
@click.option(
    "--idle-seconds",
    type=click.FloatRange(0),
    default=300,
    show_default=True,
    help="How long a container waits after its last request (scaledown_window).",
)
@click.option(
    "--cpu", type=click.FloatRange(0), default=2.0, show_default=True, help="Cores of a container."
)
@click.option(
    "--memory",
    type=click.IntRange(0),
    default=16_384,
    show_default=True,
    help="MiB of memory of a container.",
)
@with_output
def command(measured: tuple[str, ...], idle_seconds: float, cpu: float, memory: int) -> None:
    """Show what pages cost on Modal, for each kind of GPU.

    The price of 1,000 pages needs a measured throughput: run `pagevec bench` against the service,
    or divide pagevec_inputs_total by pagevec_device_busy_seconds_total in /metrics after some
    thousand pages. The idle tail is what a container costs after its last request.
    """
    throughput = _parse_throughput(measured)
    click.echo(f"prices of {AS_OF}, {SOURCE}; {cpu:g} cores and {memory:,} MiB beside the GPU\n")
    click.echo(f"{'GPU':14}{'$/hour':>9}{'pages/s':>9}{'$/1,000 pages':>15}{'$/idle tail':>13}")
    for gpu in GPU_SECOND:
        each = second(gpu, cpu, memory)
        rate = throughput.get(gpu)
        shown = f"{rate:9.1f}{1000 / rate * each:15.4f}" if rate else f"{'-':>9}{'-':>15}"
        click.echo(f"{gpu:14}{each * 3600:9.3f}{shown}{idle_seconds * each:13.4f}")
    click.echo(f"\nAn idle tail is {idle_seconds:g} s, once after each spell of requests.")


def _parse_throughput(measured: tuple[str, ...]) -> dict[Gpu, float]:
    throughput: dict[Gpu, float] = {}
    for entry in measured:
        name, _, rate = entry.rpartition("=")
        kinds = [gpu for gpu in GPU_SECOND if name in ("", gpu)]
        if not kinds:
            raise click.BadParameter(f"{entry}: expected a GPU out of {', '.join(GPU_SECOND)}")
        throughput |= dict.fromkeys(kinds, _parse_rate(entry, rate))
    return throughput


def _parse_rate(entry: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise click.BadParameter(f"{entry}: expected pages/s above 0")
    return rate
