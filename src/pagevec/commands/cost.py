"""`pagevec cost`: what pages cost on Modal, for each kind of GPU."""

import click

from pagevec.deploy.modal.prices import AS_OF, GPU_SECOND, SOURCE, Gpu, second


@click.command("cost")
@click.option(
    "--pages-per-second",
    "measured",
    multiple=True,
    metavar="[GPU=]SPEED",
    help="Measured pages/s, such as A10G=4.2; repeatable. Without GPU: of every kind.",
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
    "--memory", type=click.IntRange(0), default=16_384, show_default=True, help="MiB of it."
)
def command(measured: tuple[str, ...], idle_seconds: float, cpu: float, memory: int) -> None:
    """Show dollars for 1,000 pages and for the idle tail of a container on Modal.

    Measure the speed on the GPU itself: pagevec_inputs_total by pagevec_device_busy_seconds_total
    in /metrics, after some thousand pages. GPUs without a measure get no price for pages.
    """
    speeds = _speeds(measured)
    click.echo(f"prices of {AS_OF}, {SOURCE}; {cpu:g} cores and {memory:,} MiB beside the GPU\n")
    click.echo(f"{'GPU':14}{'$/hour':>9}{'pages/s':>9}{'$/1,000 pages':>15}{'$/idle tail':>13}")
    for gpu in GPU_SECOND:
        each = second(gpu, cpu, memory)
        speed = speeds.get(gpu)
        shown = f"{speed:9.1f}{1000 / speed * each:15.4f}" if speed else f"{'-':>9}{'-':>15}"
        click.echo(f"{gpu:14}{each * 3600:9.3f}{shown}{idle_seconds * each:13.4f}")
    click.echo(f"\nAn idle tail is {idle_seconds:g} s, once after each spell of requests.")


def _speeds(measured: tuple[str, ...]) -> dict[Gpu, float]:
    speeds: dict[Gpu, float] = {}
    for entry in measured:
        name, _, speed = entry.rpartition("=")
        kinds = [gpu for gpu in GPU_SECOND if name in ("", gpu)]
        if not kinds:
            raise click.BadParameter(f"{name} is none of {', '.join(GPU_SECOND)}")
        speeds |= dict.fromkeys(kinds, _positive(speed))
    return speeds


def _positive(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise click.BadParameter(f"{text!r} is no number of pages/s above 0")
    return speed
