"""The commands of `pagevec`, one module each."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def show_on_one_line(text: str) -> str:
    """Return `text` with control characters escaped: file names may have line ends in them."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


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
