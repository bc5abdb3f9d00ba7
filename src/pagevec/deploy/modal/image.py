"""The image that containers run: exactly the package versions that the project is tested with."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import modal
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

from pagevec.errors import ConfigurationError

_PYTHON = "3.11"
# For PDFs that do not bring their own fonts: without them their pages are blank.
_FONTS = ("fonts-noto-core", "fonts-noto-cjk")
_UV = "0.9.5"
# The service, and the PDF files of a corpus. PyPI's wheels of torch for Linux include CUDA.
_EXTRAS = ("serve", "pdf")
_CONSTRAINTS = "/constraints.txt"

# Markers are evaluated for the containers, not for the machine that deploys.
_CONTAINER = {"sys_platform": "linux", "platform_system": "Linux", "python_version": _PYTHON}
_COMMENT_OR_OPTION = re.compile(r"(^|\s)[#-].*")


def service_image(environment: Mapping[str, str]) -> modal.Image:
    """Return the image: pinned packages, then the variables, then this package's own source.

    Layers that rarely change come first: neither a new version of the source nor a new setting
    rebuilds the packages. The source is mounted when a container starts; it is not a layer.

    Args:
        environment: variables that containers get.

    Raises:
        ConfigurationError: constraints.txt is missing, or does not pin a package.
    """
    image = modal.Image.debian_slim(python_version=_PYTHON).apt_install(*_FONTS)
    if modal.is_local():  # a container already has its image
        image = image.add_local_file(find_constraints(), _CONSTRAINTS, copy=True).uv_pip_install(
            *pin_packages(_choose_extras(environment)),
            extra_options=f"--constraint {_CONSTRAINTS}",
            uv_version=_UV,
        )
    return image.env(dict(environment)).add_local_python_source("pagevec")


def find_constraints() -> Path:
    """Return constraints.txt: inside the installed package, or at the root of a source checkout.

    Raises:
        ConfigurationError: it is in neither place.
    """
    package = Path(__file__).parent
    for place in (package / "constraints.txt", package.parents[3] / "constraints.txt"):
        if place.is_file():
            return place
    raise ConfigurationError(
        "constraints.txt is missing: install pagevec from its wheel or from a source checkout"
    )


def pin_packages(extras: Sequence[str] = _EXTRAS) -> list[str]:
    """Return the requirements of the service, such as `uvicorn[standard]==0.54.0`, sorted.

    Args:
        extras: of pagevec, whose requirements are added to those of the base install.

    Raises:
        ConfigurationError: constraints.txt is missing, or does not pin a package.
    """
    pins = read_pins(find_constraints().read_text(encoding="utf-8"))
    required = map(Requirement, importlib.metadata.requires("pagevec") or ())
    pinned = {_pin(requirement, pins) for requirement in required if _applies(requirement, extras)}
    return sorted(pinned)


def read_pins(constraints: str) -> dict[NormalizedName, SpecifierSet]:
    """Return the version specifiers in the text of a constraints file, by package.

    Comments, options such as hashes, and lines for other platforms are ignored.
    """
    lines = constraints.replace("\\\n", " ").splitlines()
    entries = [_COMMENT_OR_OPTION.sub("", line).strip() for line in lines]
    pins = [Requirement(entry) for entry in entries if entry]
    return {canonicalize_name(pin.name): pin.specifier for pin in pins if _applies(pin)}


def _choose_extras(environment: Mapping[str, str]) -> tuple[str, ...]:
    # transformers imports torchao if it is installed, which adds a second to every start.
    reduced = environment.get("PAGEVEC_PRECISION") in ("int8", "fp8")
    return (*_EXTRAS, "precision") if reduced else _EXTRAS


def _applies(requirement: Requirement, extras: Sequence[str] = ()) -> bool:
    marker, names = requirement.marker, ("", *extras)
    return marker is None or any(marker.evaluate({**_CONTAINER, "extra": e}) for e in names)


def _pin(requirement: Requirement, pins: Mapping[NormalizedName, SpecifierSet]) -> str:
    name = canonicalize_name(requirement.name)
    if name not in pins:
        raise ConfigurationError(f"constraints.txt has no version of {requirement.name}: add it")
    requirement.specifier, requirement.marker = pins[name], None
    return str(requirement)
