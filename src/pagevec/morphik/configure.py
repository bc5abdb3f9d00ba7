"""Switching a morphik-core installation over: what is to change, and changing it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from pagevec.errors import ConfigurationError
from pagevec.morphik.detect import LOOKED_FOR, takes_list, wire_format
from pagevec.morphik.domain import WireFormat, domain_for
from pagevec.morphik.env_file import key_edit, key_in
from pagevec.morphik.files import Edit, backup, write
from pagevec.morphik.settings import DOMAIN, SECTION, TOML, VARIABLE, section_of, toml_text


@dataclass(frozen=True)
class Plan:
    """The changes that are needed, and what a person has to see to."""

    folder: Path
    edits: tuple[Edit, ...]
    notices: tuple[str, ...]

    def apply(self) -> Path:
        """Write the changes, the key before the switch; return the folder of the backup.

        Raises:
            ConfigurationError: something cannot be written.
        """
        try:
            kept = backup(self.folder, self.edits)
            for edit in self.edits:
                write(edit.path, edit.after, edit.mode)
        except OSError as error:
            raise ConfigurationError(f"{self.folder} cannot be written to: {error}") from None
        return kept


def plan(folder: Path, url: str, key: str | None, wire: WireFormat | None = None) -> Plan:
    """Return what has to change in `folder` so that its pages are embedded by `url`.

    Raises:
        ConfigurationError: the files are not those of morphik-core or cannot be read, the format
            that its client reads is not known, or `url` or `key` cannot be used.
    """
    section = section_of(folder)
    wire = wire or wire_format(folder)
    if wire is None:
        hint = "say what the release reads: --format npz (after mid-2025) or --format json"
        raise ConfigurationError(f"looked for either {LOOKED_FOR}: {hint}")
    edits = [] if key is None else [key_edit(folder / ".env", key)]
    edits.append(_toml_edit(folder, domain_for(url, wire), section))
    needed = tuple(edit for edit in edits if edit.is_needed)
    return Plan(folder, needed, tuple(_notices(folder, section, key)))


def _toml_edit(folder: Path, domain: str, section: dict[str, Any]) -> Edit:
    before = toml_text(folder)
    document = tomlkit.parse(before)
    as_list = takes_list(folder)
    if as_list is None:
        as_list = isinstance(section.get(DOMAIN), list)
    wanted = {
        "enable_colpali": True,
        "colpali_mode": "api",
        DOMAIN: [domain] if as_list else domain,
    }
    # Only what differs is set: a value that is right keeps its layout.
    for name, value in wanted.items():
        if section.get(name) != value:
            document[SECTION][name] = value
    return Edit(folder / TOML, before, tomlkit.dumps(document))


def _notices(folder: Path, section: dict[str, Any], key: str | None) -> Iterator[str]:
    if section.get("parser_mode") == "api":
        yield (
            'parser_mode = "api" sends documents to the same address, which does not parse: '
            'set parser_mode = "local"'
        )
    if section.get("secret_manager", "env") != "env":
        yield f"secret_manager is not `env`: .env is not read; put {VARIABLE} there"
    if key is None and not key_in(folder / ".env"):
        yield f"no key was given and .env has none: set {VARIABLE}, or run again with --key"
