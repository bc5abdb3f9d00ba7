"""The command line. Each command is a module of `pagevec.commands`, imported when it is used."""

import atexit
import difflib
import errno
import gc
import importlib
import logging
import os
import signal
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from pagevec import __version__
from pagevec.commands import FAILED, MISUSED, UNREACHABLE
from pagevec.commands.interrupts import INTERRUPTED
from pagevec.errors import (
    ConfigurationError,
    InvalidRequest,
    ObjectError,
    OtherModel,
    PagevecError,
    StoreError,
    Unauthorized,
)
from pagevec.extras import explain_missing
from pagevec.terminal import LineFormatter, echo, show_lines

# What there is when the process ends needs no collecting, which takes as long as importing click.
atexit.register(gc.freeze)

# The help of each command stands here too, so that `pagevec --help` imports none of them.
_COMMANDS = {
    "serve": "Serve a model over HTTP.",
    "embed": "Embed the pages of PDFs, images and texts into one .npz file.",
    "ingest": "Embed the pages of PDFs, pictures, texts and Office files, and store them.",
    "search": "Search the pages of a store for QUERY, by late interaction (MaxSim) and by words.",
    "mcp": "Let agents search and read the documents of a store, over MCP.",
    "documents": "List the documents of a store: their pages, and what is missing of them.",
    "remove": "Remove DOCUMENTS from a store, by their names or the paths of their files.",
    "store": "Look after a store: back it up, make it smaller, index it, while it is used.",
    "export": "Copy the documents of the store FROM into the store TO, page by page.",
    "models": "List the model families.",
    "check": "Check the service at URL: keys, inputs, formats, refusals, latency.",
    "bench": "Measure the service at URL: pages/s, texts/s, latency of queries.",
    "morphik": "Let a morphik-core installation embed its pages with this service.",
    "cost": "Show what pages cost on Modal, for each kind of GPU.",
}
# Commands that share a module with another one.
_MODULES = {"remove": ("documents", "remove")}

# The extra that a command needs, where a smaller one brings some of its modules, too.
_EXTRAS = {"serve": "serve", "embed": "serve", "mcp": "mcp"}

_HOW = "give one of its keys with --key, or in SERVICE_API_KEY (a variable, or a line of .env)"


class _Commands(click.Group):
    """Imports commands lazily; an error of pagevec ends one with a message, not a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=help_)
            for name, help_ in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name, attribute = _MODULES.get(cmd_name, (cmd_name, "command"))
        try:
            module = importlib.import_module(f"pagevec.commands.{name}")
        except ImportError as error:
            return _stand_in(name, explain_missing(error, _EXTRAS.get(name)))
        command: click.Command = getattr(module, attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        close = difflib.get_close_matches(name, _COMMANDS, n=1)
        if close and name not in _COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

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
            echo(f"pagevec: {_describe(error)}", err=True)
            sys.exit(_exit_code(error))
        except ImportError as error:
            wanted = _EXTRAS.get(ctx.invoked_subcommand or "")
            echo(f"pagevec: {explain_missing(error, wanted)}", err=True)
            sys.exit(MISUSED)
        except OSError as error:
            if error.errno == errno.EPIPE:  # click ends quietly on a closed pipe
                raise
            echo(f"pagevec: {error.filename or 'error'}: {error.strerror or error}", err=True)
            sys.exit(FAILED if error.filename is None else MISUSED)
        except KeyboardInterrupt:
            echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            error.message = show_lines(error.message)  # type: ignore[misc] # cites file names
            raise


def _stand_in(name: str, missing: str) -> click.Command:
    """Return a command for one that needs more than is installed: it has help, and says so."""

    def say() -> None:
        raise ConfigurationError(missing)

    return click.Command(
        name,
        callback=say,
        help=f"{_COMMANDS[name]}\n\n{missing[0].upper()}{missing[1:]}.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def _describe(error: PagevecError) -> str:
    # Imported here: httpx takes longer than all of `pagevec --help`.
    from pagevec.client.faults import ServiceError

    if isinstance(error, ServiceError) and error.response.status_code == Unauthorized.status:
        has_key = "Authorization" in error.response.request.headers
        return f"the service {'refuses the key' if has_key else 'wants a key'}: {_HOW}"
    return error.message if error.index is None else f"{error.message} (input {error.index})"


def _exit_code(error: PagevecError) -> int:
    from pagevec.client.faults import ServiceError, Unreachable

    if isinstance(error, OtherModel):
        return MISUSED
    if isinstance(error, StoreError | ObjectError | Unreachable):
        return UNREACHABLE
    if isinstance(error, ServiceError):
        return MISUSED if error.response.is_client_error else UNREACHABLE
    return MISUSED if isinstance(error, ConfigurationError | InvalidRequest) else FAILED


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="pagevec")
def main() -> None:
    """Document pages in, ColPali multi-vectors out."""
