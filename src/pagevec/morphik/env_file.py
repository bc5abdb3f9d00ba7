"""The key in `.env`, read as morphik-core reads it (python-dotenv) and changed in its one line."""

import re
from io import StringIO
from pathlib import Path

import dotenv

from pagevec.errors import ConfigurationError
from pagevec.morphik.files import Edit, read
from pagevec.morphik.settings import VARIABLE

_LINE = re.compile(
    rf"""^([ \t]*(?:export[ \t]+)?{VARIABLE}[ \t]*=[ \t]*)
         (?:"[^"\r\n]*"|'[^'\r\n]*'|[^\r\n]*?)
         (?=[ \t]+\#|[ \t]*\r?$)""",
    re.M | re.X,
)
# What python-dotenv, shells and Docker Compose read differently, or a header cannot carry.
_UNSAFE = re.compile(r"[^!-~]|[\"'`\\$#]")


def key_edit(path: Path, key: str) -> Edit:
    """Return the change after which `.env` holds `key`.

    Raises:
        ConfigurationError: `key` cannot stand in such a file unambiguously; it is not repeated.
    """
    if not key or _UNSAFE.search(key):
        raise ConfigurationError(
            "the key is empty or has a blank, a quote, one of \\ $ # ` or a letter beyond ASCII; "
            f"readers of .env files disagree about these: set {VARIABLE} in the environment instead"
        )
    before = read(path) if path.exists() else None
    return Edit(path, before, _with_key(before or "", key), secret=True)


def key_in(path: Path) -> str | None:
    """Return the key in the file; None if it holds none."""
    return _value(read(path)) if path.exists() else None


def _with_key(text: str, key: str) -> str:
    if _value(text) == key:
        return text
    if _LINE.search(text):
        # The last of several wins: each is changed.
        return _LINE.sub(lambda found: f'{found[1]}"{key}"', text)
    gap = "" if not text or text.endswith("\n") else "\n"
    return f'{text}{gap}{VARIABLE}="{key}"\n'


def _value(text: str) -> str | None:
    return dotenv.dotenv_values(stream=StringIO(text)).get(VARIABLE) or None
