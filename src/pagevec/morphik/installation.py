"""The two files of a morphik-core installation that decide who embeds: `morphik.toml` and `.env`.

`.env` is read as morphik-core reads it (python-dotenv), and changed in the line of the key only.
"""

import re
import tomllib
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Self

from pagevec.errors import ConfigurationError
from pagevec.morphik.files import Edit, read_text

TOML = "morphik.toml"
SECTION = "morphik"
DOMAIN = "morphik_embedding_api_domain"
VARIABLE = "MORPHIK_EMBEDDING_API_KEY"

_LINE = re.compile(
    rf"""^([ \t]*(?:export[ \t]+)?{VARIABLE}[ \t]*=[ \t]*)
         (?:"[^"\r\n]*"|'[^'\r\n]*'|[^\r\n]*?)
         (?=[ \t]+\#|[ \t]*\r?$)""",
    re.M | re.X,
)
# What python-dotenv, shells and Docker Compose read differently, or an HTTP header cannot carry.
_UNSAFE = re.compile(r"[^!-~]|[\"'`\\$#]")


@dataclass(frozen=True)
class MorphikSettings:
    """The settings in `morphik.toml` that decide who embeds pages.

    Attributes:
        is_enabled: whether pages are embedded at all.
        mode: `local`, in morphik-core's process, or `api`, by a service.
        domains: addresses of the service.
    """

    is_enabled: bool
    mode: str
    domains: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `morphik.toml` in `folder`.

        Raises:
            ConfigurationError: it is missing, not TOML, or has no section `[morphik]`.
        """
        section = read_section(folder)
        domain = section.get(DOMAIN, [])
        return cls(
            is_enabled=section.get("enable_colpali") is True,
            mode=str(section.get("colpali_mode", "local")),
            domains=(domain,) if isinstance(domain, str) else tuple(map(str, domain)),
        )


def read_section(folder: Path) -> dict[str, Any]:
    """Return the section `[morphik]` of `morphik.toml`. Raises as `MorphikSettings.read`."""
    try:
        section = tomllib.loads(read_toml(folder)).get(SECTION)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{folder / TOML} is not TOML: {error}") from None
    if not isinstance(section, dict):
        raise ConfigurationError(f"{folder / TOML} has no section [{SECTION}]")
    return section


def read_toml(folder: Path) -> str:
    """Return the text of `morphik.toml`. Raises as `MorphikSettings.read`."""
    if not (folder / TOML).is_file():
        raise ConfigurationError(f"there is no {TOML} in {folder}: expected a morphik-core folder")
    return read_text(folder / TOML)


def read_key(env: Path) -> str | None:
    """Return the key in the file `env`; None if the file or the key is missing."""
    return _find_key(read_text(env)) if env.exists() else None


def edit_key(env: Path, key: str) -> Edit:
    """Return the edit that sets the key in the file `env`.

    Raises:
        ConfigurationError: `key` is not safe in such a file; the message does not repeat it.
    """
    if not key or _UNSAFE.search(key):
        raise ConfigurationError(
            "--key: the key is empty or has a blank, a quote, one of \\ $ # ` or a letter beyond "
            f"ASCII, which readers of .env files disagree on: set {VARIABLE} in the environment"
        )
    before = read_text(env) if env.exists() else None
    return Edit(env, before, _set_key(before or "", key), secret=True)


def _set_key(text: str, key: str) -> str:
    if _find_key(text) == key:
        return text
    if _LINE.search(text):
        # The last of several lines counts: all are changed.
        return _LINE.sub(lambda line: f'{line[1]}"{key}"', text)
    gap = "" if not text or text.endswith("\n") else "\n"
    return f'{text}{gap}{VARIABLE}="{key}"\n'


def _find_key(text: str) -> str | None:
    import dotenv  # not needed by the drop-in client

    return dotenv.dotenv_values(stream=StringIO(text)).get(VARIABLE) or None
