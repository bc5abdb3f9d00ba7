"""`pagevec morphik`: let a morphik-core installation embed its pages with this service."""

import sys
from pathlib import Path
from typing import get_args

import click

from pagevec.commands import (
    FAILED,
    FromEnvironment,
    note,
    print_outcomes,
    with_ca,
    with_key,
    with_output,
)
from pagevec.commands.interrupts import interruptible
from pagevec.terminal import echo
from pagevec.wire.negotiation import WireFormat

_FOLDER = click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group("morphik")
def command() -> None:
    """Let a morphik-core installation embed its pages with this service."""


@command.command("configure")
@_FOLDER
@click.option(
    "--url",
    cls=FromEnvironment,
    envvar="PAGEVEC_URL",
    show_envvar=True,
    required=True,
    help="Address of the service, such as https://host.",
)
@with_key
@click.option(
    "--format",
    "wire",
    type=click.Choice(get_args(WireFormat)),
    help="Format that the release reads. Default: detected in its source.",
)
@click.option("--dry-run", is_flag=True, help="Show the changes without writing them.")
@with_output
def configure(
    folder: Path, url: str, key: str | None, wire: WireFormat | None, dry_run: bool
) -> None:
    """Point DIR (with morphik.toml) at the service: edits morphik.toml and .env.

    Comments and layout are kept, and the files are backed up first. A second run changes nothing.
    Without a key .env is not changed.
    """
    from pagevec.morphik.configure import plan

    planned = plan(folder, url, key, wire)
    for edit in planned.edits:
        echo(*edit.diff())
    if not planned.edits:
        echo("nothing to change")
    elif dry_run:
        echo("nothing was written (--dry-run)")
    else:
        echo(f"written; backup: {planned.apply()}")
    for notice in planned.notices:
        note(f"NOTE  {notice}")


@command.command("verify")
@_FOLDER
@with_ca
@with_output
@interruptible
def verify_command(folder: Path, ca: Path | None) -> None:
    """Check the service that the files in DIR name, with the requests of morphik-core.

    Prints PASS or FAIL for each check; the exit code is 1 if one fails.
    """
    from pagevec.morphik.verify import verify

    sys.exit(0 if print_outcomes(verify(folder, ca)) else FAILED)
