"""`pagevec check`: whether a deployment does what it should."""

import sys
from pathlib import Path

import click

from pagevec.commands import (
    FAILED,
    Service,
    print_outcomes,
    require_key,
    with_output,
    with_service_at,
)
from pagevec.commands.interrupts import interruptible


@click.command("check")
@with_service_at
@with_output
@interruptible
def command(url: str, key: str | None, ca: Path | None) -> None:
    """Check the service at URL: keys, inputs, formats, refusals, latency.

    URL is that of PAGEVEC_URL by default, else the service on this machine. Prints a line for each
    check, PASS or FAIL; the exit code is 1 if one fails.
    """
    from pagevec.check import run_checks

    known = require_key(key)
    Service(url, known, ca).connect().close()
    sys.exit(0 if print_outcomes(run_checks(url, known, ca)) else FAILED)
