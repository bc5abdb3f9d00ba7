"""`pagevec check`: does a deployment do what it should?"""

import sys

import click

from pagevec.check import run_checks


@click.command("check")
@click.argument("url")
@click.option(
    "--key", envvar="SERVICE_API_KEY", show_envvar=True, required=True, help="A valid bearer key."
)
def command(url: str, key: str) -> None:
    """Check the service at URL: keys, both kinds of input, both formats, refusals, latency.

    Prints a line for each check, PASS or FAIL; the exit code is 1 if one fails.
    """
    failed = 0
    for name, passed, detail in run_checks(url, key):
        click.echo(f"{'PASS' if passed else 'FAIL'}  {name:34}{detail}")
        failed += not passed
    click.echo("all passed" if not failed else f"{failed} failed")
    sys.exit(1 if failed else 0)
