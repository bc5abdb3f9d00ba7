"""What a sender calls a file, as a name that leads nowhere else and can be read as it stands."""

import re
import unicodedata
from pathlib import PurePosixPath

from pagevec.errors import InvalidRequest
from pagevec.ingest.suffixes import SUFFIXES

_PART_CHARS, _NAME_CHARS = 120, 240
# Marks that change the direction of what stands behind them: a name is to be read as it is.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_filename(filename: str) -> str:
    """Return what a sender calls a file as a path below a label, with forward slashes.

    Whatever could lead elsewhere, or could not be read as it stands, is left out: `..`, drives,
    control characters, marks of direction. Long names are cut before their suffix.

    Raises:
        InvalidRequest: nothing is left, or files of this type are not read here.
    """
    readable = "".join(one for one in filename if _is_readable(one)).replace("\\", "/")
    named = unicodedata.normalize("NFC", readable)
    parts = [_clean_part(part) for part in re.sub(r"^(?:[A-Za-z]:)+", "", named).split("/")]
    kept = [part for part in parts if part]
    suffix = PurePosixPath(kept[-1]).suffix if kept else ""
    if suffix.lower() not in SUFFIXES:
        raise InvalidRequest(
            f"{kept[-1][-80:] if kept else 'a file without a name'}: unsupported file type "
            f"{suffix[:20]!r} "
            f"(supported: {', '.join(sorted(SUFFIXES))})"
        )
    cut = [part[:_PART_CHARS].strip(" .") for part in kept[:-1]]
    folders = "/".join(part for part in cut if part)
    stem = kept[-1].removesuffix(suffix)[: _PART_CHARS - len(suffix)]
    below = f"{folders}/{stem}{suffix}" if folders else f"{stem}{suffix}"
    return below if len(below) <= _NAME_CHARS else f"{stem}{suffix}"


def _clean_part(part: str) -> str:
    return part.strip().rstrip(". ") if part.strip(". ") else ""


def _is_readable(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind not in ("Cc", "Cs", "Zl", "Zp") and character not in _DIRECTION
