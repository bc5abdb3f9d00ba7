"""The commands of `pagevec`, one module each."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from pagevec.secrets import mask_secrets
from pagevec.terminal import echo

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


def with_ca(command: AnyCommand) -> AnyCommand:
    """Give a command `ca`: the certificates that a service behind https is trusted by, or None."""
    return click.option(
        "--ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File of the certificates (PEM) to trust; default: SSL_CERT_FILE, else the public "
        "ones.",
    )(command)


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
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="--password-file") from None
    return tuple(line for line in lines if line)


def print_outcomes(outcomes: Iterable[tuple[str, bool, str]]) -> bool:
    """Print a line for each outcome, PASS or FAIL, and a summary; return whether all passed."""
    failed = 0
    for name, passed, detail in outcomes:
        echo(mask_secrets(f"{'PASS' if passed else 'FAIL'}  {name:34}{detail}"))
        failed += not passed
    echo("all passed" if not failed else f"{failed} failed")
    return not failed
