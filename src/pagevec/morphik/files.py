"""Changing files so that nothing is lost: a diff first, a backup, then one atomic step each."""

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
    """A file as it is and as it shall be.

    Attributes:
        before: its text; None if there is no such file.
        secret: its values are shown to nobody and its mode is 600.
    """

    path: Path
    before: str | None
    after: str
    secret: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether the file is not yet as it shall be."""
        return self.before != self.after or self.mode != _mode(self.path)

    @property
    def mode(self) -> int:
        """The mode that the file shall have."""
        return 0o600 if self.secret else _mode(self.path)

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff; of a secret file, the names without the values."""
        name = self.path.name
        old, new = (self.before or "").splitlines(), self.after.splitlines()
        # Lines around a change are secrets too in a file of secrets.
        around = 0 if self.secret else 3
        show: Callable[[str], str] = _masked if self.secret else str
        lines = difflib.unified_diff(old, new, name, name, n=around, lineterm="")
        yield from map(show, lines)
        if self.mode != _mode(self.path) or self.before is None:
            yield f" {name}: file mode {self.mode:o}"


def backup(folder: Path, edits: Sequence[Edit]) -> Path:
    """Copy the files as they are into a new folder that git ignores; return it.

    A folder of its own, since `.env.bak` would be one `git add .` away from being published.
    """
    there = folder / BACKUPS
    there.mkdir(mode=0o700, exist_ok=True)
    (there / ".gitignore").write_text("*\n", encoding="utf-8")
    kept = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=there))
    for edit in edits:
        if edit.before is not None:
            write(kept / edit.path.name, edit.before, edit.mode)
    return kept


def read(path: Path) -> str:
    """Return the text of a file, its line ends untouched.

    Raises:
        ConfigurationError: it cannot be read, or it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def write(path: Path, text: str, mode: int) -> None:
    """Replace the file in one step: whoever reads it finds the old text or the new one."""
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
    """Let `path` belong to the owner of `target`: with sudo it would become root's, and closed."""
    if target.exists():
        was = target.stat()
        with suppress(PermissionError):
            os.chown(path, was.st_uid, was.st_gid)


def _masked(line: str) -> str:
    if line.startswith(("---", "+++", "@@")):
        return line
    found = _ASSIGNMENT.match(line)
    return f"{found[1]}***" if found else f"{line[:1]}***"


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777 if path.exists() else 0o644
