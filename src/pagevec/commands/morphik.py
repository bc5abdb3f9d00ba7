"""`pagevec morphik`: an installation of morphik-core, switched over to this service."""

import sys
from pathlib import Path
from typing import get_args

import click

from pagevec.morphik.configure import plan
from pagevec.morphik.domain import WireFormat
from pagevec.morphik.verify import verify

_FOLDER = click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group("morphik")
def command() -> None:
    """Let an installation of morphik-core embed its pages here."""


@command.command("configure")
@_FOLDER
@click.option("--url", required=True, help="Address of the service, such as https://host.")
@click.option(
    "--key",
    envvar="SERVICE_API_KEY",
    show_envvar=True,
    help="Its bearer key (of several, the first); without one .env stays as it is.",
)
@click.option(
    "--format",
    "wire",
    type=click.Choice(get_args(WireFormat)),
    help="What the release reads; found in its source where there is one.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
def configure(
    folder: Path, url: str, key: str | None, wire: WireFormat | None, dry_run: bool
) -> None:
    """Point DIR (with morphik.toml) at the service: edits morphik.toml and .env.

    Comments and layout stay; the files as they were are kept. Running it again changes nothing.
    """
    first_key = key.split(",")[0].strip() if key else None
    planned = plan(folder, url, first_key, wire)
    for edit in planned.edits:
        click.echo("\n".join(edit.diff()))
    if not planned.edits:
        click.echo("nothing to change")
    elif dry_run:
        click.echo("nothing was written (--dry-run)")
    else:
        click.echo(f"written; as they were: {planned.apply()}")
    for notice in planned.notices:
        click.echo(f"NOTE  {notice}", err=True)


@command.command("verify")
@_FOLDER
def verify_command(folder: Path) -> None:
    """Check the service that the files in DIR name, as morphik-core will ask it.

    Prints a line for each check, PASS or FAIL; the exit code is 1 if one fails.
    """
    failed = 0
    for name, passed, detail in verify(folder):
        click.echo(f"{'PASS' if passed else 'FAIL'}  {name:34}{detail}")
        failed += not passed
    click.echo("all passed" if not failed else f"{failed} failed")
    sys.exit(1 if failed else 0)
