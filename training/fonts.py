"""Which fonts the pages are printed in: what Debian packages, less the families held out."""

import random
import subprocess
from functools import cache
from pathlib import Path

from PIL import ImageFont

PACKAGES = (
    "fontconfig fonts-dejavu fonts-liberation fonts-noto-core fonts-noto-mono fonts-freefont-ttf "
    "fonts-crosextra-carlito fonts-crosextra-caladea fonts-lato fonts-roboto-unhinted "
    "fonts-roboto-slab fonts-open-sans fonts-firacode fonts-inconsolata fonts-hack "
    "fonts-cantarell fonts-cabin fonts-ebgaramond fonts-linuxlibertine fonts-junicode "
    "fonts-adf-gillius fonts-adf-baskervald fonts-adf-romande fonts-adf-universalis "
    "fonts-adf-accanthis fonts-adf-switzera fonts-adf-tribun fonts-adf-verana fonts-adf-berenis "
    "fonts-go fonts-b612 fonts-croscore fonts-urw-base35 fonts-texgyre fonts-lmodern fonts-cmu "
    "fonts-courier-prime fonts-anonymous-pro fonts-quicksand fonts-jetbrains-mono fonts-inter "
    "fonts-clear-sans fonts-gfs-didot fonts-gfs-neohellenic fonts-cardo fonts-fanwood "
    "fonts-dosis fonts-arkpandora fonts-sil-gentium fonts-sil-charis fonts-stix fonts-dustin "
    "fonts-comic-neue fonts-averia-sans-gwf fonts-averia-serif-gwf"
)
HELD_OUT = (
    "Lato", "Carlito", "Caladea", "Courier Prime", "Linux Libertine", "Linux Biolinum",
    "Clear Sans", "Roboto", "Gentium", "B612",
)  # fmt: skip

# Signs, mathematics, and alphabets that only look Latin to fontconfig.
_NOT_FOR_TEXT = ("math", "symbol", "dingbat", "emoji", "outline", "keyboard", "initials", "bullet", "ornament", "ocr", "sltarget", "display", "nonuni", "integral", "shadow")  # fmt: skip


@cache
def font_files(held_out: bool) -> tuple[str, ...]:
    """Return the paths of scalable fonts that can write the five languages, sorted.

    Raises:
        FileNotFoundError: too few are installed to train on or to measure with.
    """
    pattern = ":lang=en:lang=de:lang=fr:lang=es:lang=it:scalable=true:variable=false"
    command = ["fc-list", "--format", "%{file}\t%{family[0]}\n", pattern]  # noqa: S607
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = {path: family for path, _, family in (l.partition("\t") for l in lines.splitlines())}
    files = sorted(p for p, family in found.items() if _fits(p, family) and (_out(family) == held_out))
    if len(files) < (10 if held_out else 100):
        raise FileNotFoundError(f"too few fonts: {len(files)}; apt-get install {PACKAGES}")
    return tuple(files)


@cache
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font at a size in pixels."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _out(family: str) -> bool:
    return any(family.startswith(held) for held in HELD_OUT)


def _fits(path: str, family: str) -> bool:
    both = (path + family).lower()
    return path.endswith((".ttf", ".otf")) and not any(word in both for word in _NOT_FOR_TEXT)


@cache
def _by_directory(held_out: bool) -> tuple[tuple[str, ...], ...]:
    directories: dict[str, list[str]] = {}
    for path in font_files(held_out):
        directories.setdefault(str(Path(path).parent), []).append(path)
    return tuple(tuple(paths) for paths in directories.values())


def random_font(rng: random.Random, held_out: bool = False) -> str:
    """Return a font's path; large families come up less often than their number of files."""
    if rng.random() < 0.5:
        return rng.choice(font_files(held_out))
    return rng.choice(rng.choice(_by_directory(held_out)))
