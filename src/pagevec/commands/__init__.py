"""The commands of `pagevec`, one module each.

What takes long to import is imported where a command runs, so that its help comes at once, and in
every installation.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from pagevec.errors import ConfigurationError
from pagevec.secrets import first_key, mask_secrets
from pagevec.stores import DEFAULT_STORE, check_store_name, is_service
from pagevec.terminal import LineFormatter, echo

if TYPE_CHECKING:
    from tqdm import tqdm

    from pagevec.client import Client

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])

FAILED, MISUSED, UNREACHABLE = 1, 2, 3
"""Exit codes of all commands, besides 0 and `interrupts.INTERRUPTED` (docs/cli.md)."""

LEAST_THRESHOLD = 0.9
"""Below it, what is kept once is not near to a duplicate."""

PATIENCE = 60.0
"""Seconds that a person waits for a service that is away; an ingestion waits longer."""

DEFAULT_URL = "http://127.0.0.1:8765"
_ENV_FILE = Path(".env")
_QUIET = f"{__name__}.quiet"


@dataclass(frozen=True)
class Service:
    """A service that a command asks.

    Attributes:
        url: its address.
        key: one of its keys, if one was given.
        ca: file of the certificates to trust.
        named_by: the options that give the address.
    """

    url: str
    key: str | None
    ca: Path | None
    named_by: str = "--url or PAGEVEC_URL"

    @classmethod
    def behind(cls, store: str, url: str, key: str | None, ca: Path | None) -> Self:
        """Return the service to ask about a store: that which has it, or else embeds for it."""
        return cls(store, key, ca, "--store") if is_service(store) else cls(url, key, ca)

    def connect(self, **options: Any) -> "Client":
        """Return a client of the service, which has answered.

        Args:
            **options: of `Client`.

        Raises:
            ConfigurationError: an option, the address or the key is not valid.
            Unreachable: nobody answers at the address, which is tried once.
        """
        from pagevec.client import Client
        from pagevec.client.reach import require_answer

        client = Client(self.url, self.key, ca=self.ca, **options)
        require_answer(self.url, self.ca, self.named_by)
        return client


class FromEnvironment(click.Option):
    """An option whose variable may also stand in `.env`, below the environment."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the option's variable, if it is set and not empty."""
        variables = read_variables()
        names = [self.envvar] if isinstance(self.envvar, str) else self.envvar or []
        return next((variables[name] for name in names if variables.get(name)), None)


class _KeyOption(FromEnvironment):
    """The key: of several, the first one. It may also be in the file that the service reads."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        key = super().resolve_envvar_value(ctx)
        file = read_variables().get("SERVICE_API_KEY_FILE")
        return _read_text(Path(file), "SERVICE_API_KEY_FILE") if key is None and file else key


def read_variables() -> Mapping[str, str | None]:
    """Return the environment, above the variables in `.env`."""
    if not _ENV_FILE.is_file():
        return os.environ
    from dotenv import dotenv_values

    content = _read_text(_ENV_FILE, "variables")
    return {**dotenv_values(stream=StringIO(content)), **os.environ}


def _read_text(file: Path, of: str) -> str:
    """Return the text in a file of secrets; an error shows nothing of it."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror
    except UnicodeError:
        reason = "it is no text in UTF-8"
    raise click.BadParameter(f"{file}: {reason}", param_hint=of)


def with_service(command: AnyCommand) -> AnyCommand:
    """Give a command `url`, `key` and `ca`, from which it makes a `Service`."""
    url = click.option(
        "--url",
        cls=FromEnvironment,
        envvar="PAGEVEC_URL",
        show_envvar=True,
        default=DEFAULT_URL,
        show_default=True,
        help="The service.",
    )
    return url(with_key(with_ca(command)))


def with_service_at(command: AnyCommand) -> AnyCommand:
    """Give a command `url` as an argument that may be left out, `key` and `ca`."""
    url = click.argument("url", required=False, callback=_find_url)
    return url(with_key(with_ca(command)))


def _find_url(_context: click.Context, _argument: click.Parameter, url: str | None) -> str:
    return url or read_variables().get("PAGEVEC_URL") or DEFAULT_URL


def with_key(command: AnyCommand) -> AnyCommand:
    """Give a command `key`: a bearer key of the service, or None."""
    return click.option(
        "--key",
        cls=_KeyOption,
        envvar="SERVICE_API_KEY",
        show_envvar=True,
        callback=lambda _context, _option, key: first_key(key),
        help="Bearer key; of several, separated by commas, the first.",
    )(command)


def require_key(key: str | None) -> str:
    """Return `key`, for commands that are of no use without one.

    Raises:
        ConfigurationError: there is none.
    """
    if key is None:
        raise ConfigurationError(
            "there is no key: give one with --key, or in SERVICE_API_KEY (a variable, or a line "
            "of .env)"
        )
    return key


def with_ca(command: AnyCommand) -> AnyCommand:
    """Give a command `ca`: the certificates that a service behind https is trusted by, or None."""
    return click.option(
        "--ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File of the certificates (PEM) to trust; default: SSL_CERT_FILE, else the public "
        "ones.",
    )(command)


def with_store(command: AnyCommand) -> AnyCommand:
    """Give a command `store`: the name of a store, of a kind that is known."""
    return click.option(
        "--store",
        default=DEFAULT_STORE,
        show_default=True,
        callback=_check_store,
        help="Folder, postgresql://, qdrant:, or http:// of a service that has a store.",
    )(command)


def _check_store(_context: click.Context, _option: click.Parameter, store: str) -> str:
    check_store_name(store)
    return store


def read_threshold(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> float | None:
    """Return the cosine from which on near-duplicate vectors are kept once, as a user gave it."""
    from pagevec.stores.condense import OFF

    if value in (None, "off"):
        return None if value is None else OFF
    try:
        threshold = float(value)
    except ValueError:
        threshold = math.nan
    if not LEAST_THRESHOLD <= threshold <= 1:
        raise click.BadParameter(
            f"{value!r}: expected a cosine from {LEAST_THRESHOLD} to 1, or off"
        )
    return threshold


def with_condense(command: AnyCommand) -> AnyCommand:
    """Give a command `condense`, the threshold of a new store; or None."""
    return click.option(
        "--condense",
        metavar="COSINE|off",
        callback=read_threshold,
        help="Of a new store: vectors of a page whose cosine is this or above are kept once; "
        "default: what loses nothing with the model, as far as that was measured, else off.",
    )(command)


def with_output(command: AnyCommand) -> AnyCommand:
    """Give a command `--quiet` and `--verbose`, which `note`, `progress_bar` and logs obey."""
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_quiet,
        help="Only results and errors: no progress, no notes.",
    )
    verbose = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_set_verbose,
        help="Log to standard error what is done; -vv: in detail.",
    )
    return quiet(verbose(command))


def _set_quiet(context: click.Context, _option: click.Parameter, quiet: bool) -> None:
    context.meta[_QUIET] = quiet
    if quiet:
        logging.getLogger("pagevec").setLevel(logging.ERROR)


def _set_verbose(_context: click.Context, _option: click.Parameter, times: int) -> None:
    if times:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("pagevec")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if times == 1 else logging.DEBUG)


def is_quiet() -> bool:
    """Whether the running command was asked to print results and errors only."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET))


def note(*lines: str) -> None:
    """Tell a person what happens, on standard error, which no program reads."""
    if lines and not is_quiet():
        echo(*lines, err=True)


def progress_bar(unit: str, total: int | None = None) -> "tqdm[Any]":
    """Return a progress bar on standard error; there is none where that is no terminal."""
    from tqdm import tqdm

    hidden = True if is_quiet() else None
    return tqdm(total=total, unit=f" {unit}", dynamic_ncols=True, disable=hidden)


def with_passwords(command: AnyCommand) -> AnyCommand:
    """Give a command `passwords` and `more_passwords`, each a tuple, for encrypted documents."""
    given = click.option(
        "--password", "passwords", multiple=True, help="Of encrypted documents (repeatable)."
    )
    in_a_file = click.option(
        "--password-file",
        "more_passwords",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_read_passwords,
        help="File of passwords, one in each line.",
    )
    return given(in_a_file(command))


def _read_passwords(
    _context: click.Context, _option: click.Parameter, file: Path | None
) -> tuple[str, ...]:
    if file is None:
        return ()
    return tuple(filter(None, _read_text(file, "--password-file").splitlines()))


def print_outcomes(outcomes: Iterable[tuple[str, bool, str]]) -> bool:
    """Print a line for each outcome, PASS or FAIL, and a summary; return whether all passed."""
    failed = 0
    for name, passed, detail in outcomes:
        echo(mask_secrets(f"{'PASS' if passed else 'FAIL'}  {name:34}{detail}"))
        failed += not passed
    echo("all passed" if not failed else f"{failed} failed")
    return not failed
