"""What strangers wrote, on its way to a terminal or a log: control characters are escaped here.

File names, titles, queries and the answers of a service can hold anything: escape codes that
repaint a terminal, line ends that forge a line, marks that turn the direction of a text.
"""

import json
import logging
import re
from typing import Any

import click

from pagevec.secrets import mask_secrets

# Control characters (C0, DEL, C1), line and paragraph separators, marks of direction, the byte
# order mark, halves of characters (a file name that is not UTF-8) and invisible tags.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def show_on_one_line(text: str) -> str:
    """Return `text` with everything escaped that a terminal would not show as a character."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show_lines(text: str) -> str:
    """Return `text` as `show_on_one_line` does, with its line ends left in place."""
    return "\n".join(map(show_on_one_line, text.split("\n")))


def show_json(value: Any) -> str:
    """Return `value` as JSON for people: it reads back exactly, and a terminal shows all of it."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # Outside its strings JSON has no such character but the line ends between them.
    parts = (_UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], one) for one in text.split("\n"))
    return "\n".join(parts)


def echo(*lines: str, err: bool = False) -> None:
    """Print each of `lines` on one line, whatever is in it; `err`: to standard error."""
    click.echo("\n".join(map(show_on_one_line, lines)), err=err)


def count(number: int, thing: str) -> str:
    """Return how many `thing`s there are, such as `1 page` or `1,024 vectors`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


class LineFormatter(logging.Formatter):
    """Formats records of a log: each on one line, without secrets, a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return show_on_one_line(mask_secrets(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:
        """Return a traceback, indented: no line of it can pass for a record."""
        return show_traceback(super().formatException(ei))


def show_traceback(text: str) -> str:
    """Return a traceback without secrets, indented: no line of it can pass for a record."""
    lines = mask_secrets(text).split("\n")
    return "\n".join(f"  {show_on_one_line(line)}" for line in lines)
