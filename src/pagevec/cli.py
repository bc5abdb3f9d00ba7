"""The command line. Each command is a module of `pagevec.commands`, imported when it is used."""

import importlib
import sys
from typing import Any

import click

from pagevec import __version__
from pagevec.errors import PagevecError

_COMMANDS = ("serve", "embed", "ingest", "search", "models", "check", "morphik", "cost")
_EXTRAS = {"morphik": "morphik"}


class _Commands(click.Group):
    """Loads commands lazily; errors of pagevec end one with a sentence, not with a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        try:
            module = importlib.import_module(f"pagevec.commands.{cmd_name}")
        except ImportError as error:
            extra = _EXTRAS.get(cmd_name, "serve,pdf")
            raise click.ClickException(f"{error}; try `pip install 'pagevec[{extra}]'`") from None
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PagevecError as error:
            where = "" if error.index is None else f" (input {error.index})"
            click.echo(f"pagevec: {error.message}{where}", err=True)
            sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pagevec")
def main() -> None:
    """Document pages in, ColPali multi-vectors out."""
