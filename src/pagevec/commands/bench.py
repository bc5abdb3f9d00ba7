"""`pagevec bench`: what does a running service achieve?"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pagevec.commands import Service, require_key, with_output, with_service_at
from pagevec.commands.interrupts import interruptible
from pagevec.terminal import echo, show_json

if TYPE_CHECKING:
    from pagevec.bench import Phase

_SHARES = (50, 95, 99)


def _parse_size(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", value)
    if match is None:
        raise click.BadParameter(f"{value!r}: expected WIDTHxHEIGHT in pixels, such as 1240x1754")
    return int(match[1]), int(match[2])


@click.command("bench")
@with_service_at
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10,
    show_default=True,
    help="How long each of the four phases sends requests.",
)
@click.option(
    "--requests",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="How many requests each phase sends, at most.",
)
@click.option(
    "--callers",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Requests of pages or texts at the same time. Raise it until pages/s no longer grow.",
)
@click.option(
    "--size",
    callback=_parse_size,
    default="1240x1754",
    show_default=True,
    metavar="WIDTHxHEIGHT",
    help="Of a page, in pixels.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@with_output
@interruptible
def command(
    url: str,
    key: str | None,
    ca: Path | None,
    seconds: float,
    requests: int,
    callers: int,
    size: tuple[int, int],
    as_json: bool,
) -> None:
    """Measure the service at URL: pages/s, texts/s, latency of queries.

    It measures queries alone, texts, pages, and queries beside pages. Every page and every text is
    new, so that nothing can be answered from a cache. The service does real work for this: on
    Modal it costs money, and other callers wait longer.
    """
    from pagevec.bench import TEXTS_EACH, Bench

    service = Service(url, require_key(key), ca)
    # One attempt: a retry would hide that a request failed, and count its waiting as latency.
    with service.connect(resize=False, attempts=1, patience=0) as client:
        info = client.info()
        bench = Bench(client, seconds=seconds, requests=requests, callers=callers, size=size)
        about = f"{info.model} on {info.device} in {info.dtype}; {callers} callers, "
        if not as_json:
            echo(f"{about}pages of {size[0]} x {size[1]} pixels", "")
            click.echo(_line("", "requests", "inputs/s", *(f"p{share} ms" for share in _SHARES)))
        phases = {}
        for phase in bench.run():
            phases[phase.name] = phase
            if not as_json:
                click.echo(_format(phase))
    pages, texts = (phases[name].per_second for name in ("pages", "texts"))
    if as_json:
        figures = {
            "url": url,
            "model": info.model,
            "device": info.device,
            "dtype": info.dtype,
            "callers": callers,
            "page_size": size,
            "pages_per_second": pages,
            "texts_per_second": texts,
            "phases": [_describe(phase) for phase in phases.values()],
        }
        click.echo(show_json(figures))
        return
    click.echo(
        f"\na request holds a query, {TEXTS_EACH} texts or a page\n"
        "what 1,000 pages cost on Modal, with your GPU in place of A10G:\n"
        f"  pagevec cost --pages-per-second A10G={pages:.2f}"
    )


def _format(phase: "Phase") -> str:
    # Queries come at their own pace: how many there were is no throughput.
    rate = "" if phase.name.startswith("queries") else f"{phase.per_second:.2f}"
    percentiles = (f"{phase.percentile(share):.1f}" for share in _SHARES)
    return _line(phase.name, f"{len(phase.latencies)}", rate, *percentiles)


def _line(name: str, *cells: str) -> str:
    return f"{name:22}" + "".join(f"{cell:>11}" for cell in cells)


def _describe(phase: "Phase") -> dict[str, Any]:
    return {
        "name": phase.name,
        "requests": len(phase.latencies),
        "inputs": phase.inputs,
        "seconds": phase.seconds,
        "inputs_per_second": phase.per_second,
        **{f"p{share}_ms": phase.percentile(share) for share in _SHARES},
    }
