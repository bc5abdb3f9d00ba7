"""What the files of a morphik-core installation say about its embedding service."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagevec.errors import ConfigurationError
from pagevec.morphik.files import read

TOML = "morphik.toml"
SECTION = "morphik"
DOMAIN = "morphik_embedding_api_domain"
VARIABLE = "MORPHIK_EMBEDDING_API_KEY"


@dataclass(frozen=True)
class MorphikSettings:
    """The part of `morphik.toml` that decides who embeds pages."""

    is_enabled: bool
    mode: str
    domains: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "MorphikSettings":
        """Read `morphik.toml` in `folder`.

        Raises:
            ConfigurationError: there is none, it is no TOML, or it has no section `[morphik]`.
        """
        section = section_of(folder)
        domain = section.get(DOMAIN, [])
        return cls(
            is_enabled=section.get("enable_colpali") is True,
            mode=str(section.get("colpali_mode", "local")),
            domains=(domain,) if isinstance(domain, str) else tuple(map(str, domain)),
        )


def section_of(folder: Path) -> dict[str, Any]:
    """Return the section `[morphik]`. Raises as `MorphikSettings.of` does."""
    try:
        section = tomllib.loads(toml_text(folder)).get(SECTION)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{folder / TOML} is not TOML: {error}") from None
    if not isinstance(section, dict):
        raise ConfigurationError(f"{folder / TOML} has no section [{SECTION}]")
    return section


def toml_text(folder: Path) -> str:
    """Return the text of `morphik.toml`. Raises as `MorphikSettings.of` does."""
    if not (folder / TOML).is_file():
        hint = "give the folder of a morphik-core checkout or installation"
        raise ConfigurationError(f"there is no {TOML} in {folder}: {hint}")
    return read(folder / TOML)
