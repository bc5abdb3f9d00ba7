"""The image that containers run: exactly the versions that the project is tested with."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import modal

from pagevec.errors import ConfigurationError

_PYTHON = "3.11"
_UV = "0.9.5"
# What the service needs, and PDF files of a corpus. PyPI's torch for Linux brings CUDA with it.
_EXTRAS = ("serve", "pdf")
_IN_THE_IMAGE = "/constraints.txt"


def service_image(environment: Mapping[str, str]) -> modal.Image:
    """Return the image: pinned packages, then the variables, then this package's own source.

    Ordered by how seldom each changes: a new version of the source or a new setting builds nothing
    again. The source is mounted when a container starts, it is no layer.

    Raises:
        ConfigurationError: the versions are not known here.
    """
    image = modal.Image.debian_slim(python_version=_PYTHON)
    if modal.is_local():  # a container has its image already
        image = image.add_local_file(constraints_file(), _IN_THE_IMAGE, copy=True).uv_pip_install(
            *packages(_extras(environment)),
            extra_options=f"--constraint {_IN_THE_IMAGE}",
            uv_version=_UV,
        )
    return image.env(dict(environment)).add_local_python_source("pagevec")


def constraints_file() -> Path:
    """Return constraints.txt: inside the installed package, or at the root of a source checkout."""
    package = Path(__file__).parent
    for place in (package / "constraints.txt", package.parents[3] / "constraints.txt"):
        if place.is_file():
            return place
    raise ConfigurationError(
        "constraints.txt is not there: install pagevec from its wheel or from a source checkout"
    )


def packages(extras: Sequence[str] = _EXTRAS) -> list[str]:
    """Return what pip installs for the service, each package pinned, without pagevec itself."""
    pins = dict(line.split("==") for line in _lines(constraints_file()))
    pinned = {_normal(name): version for name, version in pins.items()}
    return sorted(
        {f"{name}=={pinned[_normal(name.partition('[')[0])]}" for name in _required(extras)}
    )


def _extras(environment: Mapping[str, str]) -> tuple[str, ...]:
    # transformers imports torchao where it is there: a second of every start.
    reduced = environment.get("PAGEVEC_PRECISION", "full") != "full"
    return (*_EXTRAS, "precision") if reduced else _EXTRAS


def _required(extras: Sequence[str]) -> list[str]:
    """Return the packages, such as `uvicorn[standard]`, of the base install and of `extras`."""
    required = importlib.metadata.requires("pagevec") or []
    wanted = [line for line in required if "extra ==" not in line or _is_of(extras, line)]
    return [match.group() for line in wanted if (match := re.match(r"[\w.-]+(\[[\w,-]+\])?", line))]


def _is_of(extras: Sequence[str], requirement: str) -> bool:
    return any(re.search(rf"""extra == ['"]{extra}['"]""", requirement) for extra in extras)


def _lines(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
