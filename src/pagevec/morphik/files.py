"""Edits of configuration files: shown as a diff, backed up, and written atomically."""

import difflib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pagevec.errors import ConfigurationError

BACKUPS = ".pagevec-backup"

_ASSIGNMENT = re.compile(r"^([+-]\s*(?:export\s+)?\w+\s*=).*", re.S)


@dataclass(frozen=True)
class Edit:
    """A change of one file.

    Attributes:
        path: of the file.
        before: its text now; None if it does not exist.
        after: its text after the change.
        secret: whether it holds secrets: values are never shown, and its mode becomes 600.
    """

    path: Path
    before: str | None
    after: str
    secret: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether the text or the mode of the file has to change."""
        return self.before != self.after or self.mode != _mode(self.path)

    @property
    def mode(self) -> int:
        """The mode of the file after the change."""
        return 0o600 if self.secret else _mode(self.path)

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff; of a secret file names only, without values."""
        name = self.path.name
        old, new = (self.before or "").splitlines(), self.after.splitlines()
        # In a file of secrets, the lines around a change are secrets too.
        around = 0 if self.secret else 3
        show: Callable[[str], str] = _mask if self.secret else str
        lines = difflib.unified_diff(old, new, name, name, n=around, lineterm="")
        yield from map(show, lines)
        if self.mode != _mode(self.path) or self.before is None:
            yield f" {name}: file mode {self.mode:o}"


def backup(folder: Path, edits: Sequence[Edit]) -> Path:
    """Copy the files that `edits` change into a new folder that git ignores, and return it.

    A file `.env.bak` beside the original would be published by the next `git add .`.
    """
    backups = folder / BACKUPS
    backups.mkdir(mode=0o700, exist_ok=True)
    (backups / ".gitignore").write_text("*\n", encoding="utf-8")
    copy = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=backups))
    for edit in edits:
        if edit.before is not None:
            write_text(copy / edit.path.name, edit.before, edit.mode)
    return copy


def read_text(path: Path) -> str:
    """Return the text of a file with its line ends unchanged.

    Raises:
        ConfigurationError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def write_text(path: Path, text: str, mode: int) -> None:
    """Replace the file atomically: a reader finds the old text or the new one, never a part."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
        Path(name).chmod(mode)
        _keep_owner(Path(name), target)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _keep_owner(path: Path, target: Path) -> None:
    """Give `path` the owner of `target`: under sudo it would belong to root."""
    if target.exists():
        owner = target.stat()
        with suppress(PermissionError):
            os.chown(path, owner.st_uid, owner.st_gid)


def _mask(line: str) -> str:
    if line.startswith(("---", "+++", "@@")):
        return line
    found = _ASSIGNMENT.match(line)
    return f"{found[1]}***" if found else f"{line[:1]}***"


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777 if path.exists() else 0o644
