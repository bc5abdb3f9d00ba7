"""`pagevec morphik configure`: point a morphik-core installation at a service."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from pagevec.errors import ConfigurationError
from pagevec.morphik.files import Edit, backup, write_text
from pagevec.morphik.installation import (
    DOMAIN,
    SECTION,
    TOML,
    VARIABLE,
    edit_key,
    read_key,
    read_section,
    read_toml,
)
from pagevec.morphik.release import CLIENT, add_format, detect_format, takes_list
from pagevec.wire.negotiation import WireFormat


@dataclass(frozen=True)
class Plan:
    """The changes of an installation.

    Attributes:
        folder: of the installation.
        edits: of the files that have to change.
        notices: sentences about what the user has to change.
    """

    folder: Path
    edits: tuple[Edit, ...]
    notices: tuple[str, ...]

    def apply(self) -> Path:
        """Write the changes, the key before the switch, and return the folder of the backup.

        Raises:
            ConfigurationError: a file cannot be written.
        """
        try:
            copy = backup(self.folder, self.edits)
            for edit in self.edits:
                write_text(edit.path, edit.after, edit.mode)
        except OSError as error:
            raise ConfigurationError(f"{self.folder} cannot be written to: {error}") from None
        return copy


def plan(folder: Path, url: str, key: str | None, wire: WireFormat | None = None) -> Plan:
    """Return what has to change so that a service embeds the pages of an installation.

    Args:
        folder: of the installation, with `morphik.toml`.
        url: address of the service.
        key: its key; None leaves `.env` as it is.
        wire: format that the release reads; None means to detect it in the release's source.

    Raises:
        ConfigurationError: the files are not those of morphik-core or cannot be read, the format
            cannot be detected, or `url` or `key` cannot be used.
    """
    section = read_section(folder)
    wire = wire or detect_format(folder)
    if wire is None:
        raise ConfigurationError(
            f"cannot tell from {CLIENT} which format this morphik-core reads: pass --format npz "
            "(releases after mid-2025) or --format json"
        )
    edits = [] if key is None else [edit_key(folder / ".env", key)]
    edits.append(_edit_toml(folder, add_format(url, wire), section))
    needed = tuple(edit for edit in edits if edit.is_needed)
    return Plan(folder, needed, tuple(_notices(folder, section, key)))


def _edit_toml(folder: Path, domain: str, section: dict[str, Any]) -> Edit:
    before = read_toml(folder)
    document = tomlkit.parse(before)
    as_list = takes_list(folder)
    if as_list is None:
        as_list = isinstance(section.get(DOMAIN), list)
    wanted = {
        "enable_colpali": True,
        "colpali_mode": "api",
        DOMAIN: [domain] if as_list else domain,
    }
    # Only values that differ are set, so that the others keep their layout.
    for name, value in wanted.items():
        if section.get(name) != value:
            document[SECTION][name] = value
    return Edit(folder / TOML, before, tomlkit.dumps(document))


def _notices(folder: Path, section: dict[str, Any], key: str | None) -> Iterator[str]:
    if section.get("parser_mode") == "api":
        yield (
            'parser_mode = "api" sends documents to the same address, which cannot parse them: '
            'set parser_mode = "local"'
        )
    if section.get("secret_manager", "env") != "env":
        yield f"secret_manager is not `env`, so .env is not read: put {VARIABLE} into that manager"
    if key is None and not read_key(folder / ".env"):
        yield f"no key was given and .env has none: set {VARIABLE}, or run again with --key"
