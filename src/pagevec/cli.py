"""The command line. Each command is a module of `pagevec.commands`, imported when it is used."""

import importlib
import logging
import os
import signal
import sys
from typing import Any

import click

from pagevec import __version__
from pagevec.errors import PagevecError
from pagevec.terminal import LineFormatter, echo, show_lines

# The help of each command stands here too, so that `pagevec --help` imports none of them.
_COMMANDS = {
    "serve": "Serve a model over HTTP.",
    "embed": "Embed the pages of PDFs, images and texts into one .npz file.",
    "ingest": "Embed the pages of PDFs, pictures, texts and Office files, and store them.",
    "search": "Search the pages of a store for QUERY, by late interaction (exact MaxSim).",
    "documents": "List the documents of a store: their pages, and what is missing of them.",
    "remove": "Remove DOCUMENTS from a store, by their names or the paths of their files.",
    "models": "List the model families.",
    "check": "Check the service at URL: keys, inputs, formats, refusals, latency.",
    "bench": "Measure the service at URL: pages/s, texts/s, latency of queries.",
    "morphik": "Let a morphik-core installation embed its pages with this service.",
    "cost": "Show what pages cost on Modal, for each kind of GPU.",
}
_EXTRAS = {"morphik": "morphik"}
# Commands that share a module with another one.
_MODULES = {"remove": ("documents", "remove")}


class _Commands(click.Group):
    """Imports commands lazily; an error of pagevec ends one with a message, not a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        try:
            name, attribute = _MODULES.get(cmd_name, (cmd_name, "command"))
            module = importlib.import_module(f"pagevec.commands.{name}")
        except ImportError as error:
            extra = _EXTRAS.get(cmd_name, "serve,pdf")
            raise click.ClickException(f"{error}; try `pip install 'pagevec[{extra}]'`") from None
        command: click.Command = getattr(module, attribute)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if os.getpid() == 1:
            # The first process of a container ignores a signal that it has no handler for, and
            # commands import for seconds before they set their own.
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        if logging.lastResort is not None:  # writes warnings where no log is configured
            logging.lastResort.setFormatter(LineFormatter())
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PagevecError as error:
            where = "" if error.index is None else f" (input {error.index})"
            echo(f"pagevec: {error.message}{where}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.filename is None:  # not of a path: click ends quietly on a closed pipe
                raise
            echo(f"pagevec: {error.filename}: {error.strerror}", err=True)
            sys.exit(2)
        except click.ClickException as error:
            error.message = show_lines(error.message)  # type: ignore[misc] # cites file names
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pagevec")
def main() -> None:
    """Document pages in, ColPali multi-vectors out."""
