"""`python -m benchmarks NAME`: what is measured, on this machine; `http` where none is named."""

import asyncio
import signal
import sys
from pathlib import Path

import click
import httpx

from benchmarks import (
    callers,
    cold,
    engine,
    inputs,
    peers,
    plot,
    pooling,
    postgres,
    precision,
    search,
)
from benchmarks.answers import AnswersDiffer
from benchmarks.crowd import Crowd
from benchmarks.http import compare
from benchmarks.machine import machine
from benchmarks.output import give, json_option, write
from benchmarks.retrieval import command as retrieval
from benchmarks.servers import ServerFailed, pagevec
from pagevec.engine.models.bundled import bundled_checkpoint

_COUNT = click.IntRange(min=1)
_MODEL = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure pagevec beside its alternatives, in one run, on this machine."""
    # The services are processes of their own: end with them, not before them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if context.invoked_subcommand is None:
        context.invoke(http)


@main.command()
@click.option("--pages", type=_COUNT, default=16, show_default=True, help="Pages in a round.")
@click.option("--texts", type=_COUNT, default=128, show_default=True, help="Texts in a round.")
@click.option("--rounds", type=_COUNT, default=3, show_default=True, help="Medians are of these.")
@click.option("--model", type=_MODEL, help="A ColQwen2.5 checkpoint; default: the bundled one.")
@json_option
def http(pages: int, texts: int, rounds: int, model: Path | None, file: Path | None) -> None:
    """Compare pagevec with the plain loop over HTTP on the CPU, in float32.

    The plain loop is colpali-engine in a FastAPI endpoint, as people write it first. All run
    here, on loopback, take turns, and must give equal answers.
    """
    try:
        report = compare((model or bundled_checkpoint()).resolve(), pages, texts, rounds)
    except (AnswersDiffer, ServerFailed, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
    give("http", report, file)


@main.command()
@click.option("--callers", type=_COUNT, default=64, show_default=True, help="At once.")
@click.option("--rounds", type=_COUNT, default=3, show_default=True, help="Requests of each.")
@json_option
def crowd(callers: int, rounds: int, file: Path | None) -> None:
    """Let many callers ask at once, half of them queries, half of them pages, two at a time."""
    with pagevec(bundled_checkpoint()) as server:
        crowd_of = Crowd(server.url, server.key, inputs.make_pages(6), inputs.make_texts(16))
        figures = asyncio.run(crowd_of.run(callers, rounds, pages_each=2))
    write("crowd", {"machine": machine(), "callers": callers, **figures.as_json()}, file)
    click.echo(figures.markdown(callers))


for measured in (
    engine, callers, peers, precision, pooling, cold, search, postgres, retrieval, plot,
):  # fmt: skip
    main.add_command(measured.command)


if __name__ == "__main__":
    main()
