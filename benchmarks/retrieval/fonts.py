"""Fonts of Debian packages: those that training prints with, and the families held out."""

import random
import subprocess
from functools import cache
from pathlib import Path

from benchmarks import BenchmarkFailed

PACKAGES = (
    "fontconfig fonts-adf-accanthis fonts-adf-baskervald fonts-adf-berenis fonts-adf-gillius "
    "fonts-adf-romande fonts-adf-switzera fonts-adf-tribun fonts-adf-universalis fonts-adf-verana "
    "fonts-anonymous-pro fonts-arkpandora fonts-averia-sans-gwf fonts-averia-serif-gwf fonts-b612 "
    "fonts-cabin fonts-cantarell fonts-cardo fonts-clear-sans fonts-cmu fonts-comic-neue "
    "fonts-courier-prime fonts-croscore fonts-crosextra-caladea fonts-crosextra-carlito "
    "fonts-dejavu fonts-dosis fonts-dustin fonts-ebgaramond fonts-essays1743 fonts-fanwood "
    "fonts-firacode fonts-freefont-ttf fonts-georgewilliams fonts-gfs-didot fonts-gfs-neohellenic "
    "fonts-go fonts-goudybookletter fonts-hack fonts-inconsolata fonts-inter fonts-jetbrains-mono "
    "fonts-junicode fonts-lato fonts-liberation fonts-linuxlibertine fonts-lmodern fonts-noto-core "
    "fonts-noto-mono fonts-open-sans fonts-quicksand fonts-roboto-slab fonts-roboto-unhinted "
    "fonts-sil-charis fonts-sil-gentium fonts-stix fonts-texgyre fonts-urw-base35"
)
HELD_OUT = (
    "B612",
    "Caladea",
    "Carlito",
    "Clear Sans",
    "Courier Prime",
    "Gentium",
    "Lato",
    "Linux Biolinum",
    "Linux Libertine",
    "Roboto",
)

_LANGUAGES = ":lang=en:lang=de:lang=fr:lang=es:lang=it:scalable=true:variable=false"
# Symbol and mathematics fonts, which fontconfig takes for Latin.
_NOT_FOR_TEXT = (
    "bullet",
    "dingbat",
    "display",
    "emoji",
    "initials",
    "integral",
    "keyboard",
    "math",
    "nonuni",
    "ocr",
    "ornament",
    "outline",
    "shadow",
    "sltarget",
    "symbol",
)
_FEWEST = {True: 10, False: 100}


class FontsMissing(BenchmarkFailed):
    """Too few fonts are installed; the message names the Debian packages."""


@cache
def find_fonts(held_out: bool) -> tuple[str, ...]:
    """Return the sorted paths of scalable fonts that cover the five languages.

    Raises:
        FontsMissing: too few are installed to train on, or to measure with.
    """
    try:
        lines = _fc_list().splitlines()
    except FileNotFoundError:
        lines = []
    found = dict(line.split("\t", 1) for line in lines)
    files = sorted(
        path
        for path, family in found.items()
        if _is_for_text(path, family) and family.startswith(HELD_OUT) == held_out
    )
    if len(files) < _FEWEST[held_out]:
        raise FontsMissing(f"only {len(files)} fonts found: apt-get install {PACKAGES}")
    return tuple(files)


def random_font(rng: random.Random) -> str:
    """Return a font to train on; large families are chosen less often than their file count."""
    if rng.random() < 0.5:
        return rng.choice(find_fonts(held_out=False))
    return rng.choice(rng.choice(_by_directory()))


def _fc_list() -> str:
    command = ["fc-list", "--format", "%{file}\t%{family[0]}\n", _LANGUAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


def _is_for_text(path: str, family: str) -> bool:
    both = (path + family).lower()
    return path.endswith((".ttf", ".otf")) and not any(word in both for word in _NOT_FOR_TEXT)


@cache
def _by_directory() -> tuple[tuple[str, ...], ...]:
    directories: dict[str, list[str]] = {}
    for path in find_fonts(held_out=False):
        directories.setdefault(str(Path(path).parent), []).append(path)
    return tuple(tuple(paths) for paths in directories.values())
