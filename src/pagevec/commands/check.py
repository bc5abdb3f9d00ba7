"""`pagevec check`: whether a deployment does what it should."""

import sys
from pathlib import Path

import click

from pagevec.check import run_checks
from pagevec.commands import print_outcomes, with_ca


@click.command("check")
@click.argument("url")
@click.option(
    "--key", envvar="SERVICE_API_KEY", show_envvar=True, required=True, help="A valid bearer key."
)
@with_ca
def command(url: str, key: str, ca: Path | None) -> None:
    """Check the service at URL: keys, inputs, formats, refusals, latency.

    Prints a line for each check, PASS or FAIL; the exit code is 1 if one fails.
    """
    sys.exit(0 if print_outcomes(run_checks(url, key, ca)) else 1)
