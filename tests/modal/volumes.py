"""Volumes as Modal has them: each container sees what was committed when it started or reloaded."""

import os
import shutil
from pathlib import Path


class Volumes:
    """Folders that were committed, and the copies of them that containers have.

    Attributes:
        folder: holds both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, str] = {}
        self._seen: dict[str, set[Path]] = {}

    def committed(self, name: str) -> Path:
        """Return the folder with what was committed to the volume called `name`."""
        made = self.folder / "committed" / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def mount(self, task: str, name: str) -> Path:
        """Return the copy of a volume that the container of `task` has from now on."""
        self._names[task] = name
        self.copy_of(task).mkdir(parents=True)
        self.reload(task)
        return self.copy_of(task)

    def commit(self, task: str) -> None:
        """Let others see what this container has written and removed."""
        self._seen[task] = _bring(
            self.copy_of(task), self.committed(self._names[task]), self._seen[task]
        )
        self.reload(task)

    def reload(self, task: str) -> None:
        """Let this container see what others have committed."""
        self._seen[task] = _bring(
            self.committed(self._names[task]), self.copy_of(task), self._seen.get(task, set())
        )

    def copy_of(self, task: str) -> Path:
        """Return the folder that the container of `task` has."""
        return self.folder / "of" / task


def files_below(folder: Path) -> set[Path]:
    """Return the files and links below `folder`, by their relative paths."""
    return {
        (Path(root) / name).relative_to(folder)
        for root, folders, names in os.walk(folder)
        for name in (*names, *(one for one in folders if (Path(root) / one).is_symlink()))
    }


def _bring(source: Path, target: Path, seen: set[Path]) -> set[Path]:
    """Bring files that are new or changed to `target`, and remove those of `seen` that are gone."""
    here = files_below(source)
    for file in here:
        if not _is_same(source / file, target / file):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            coming = target / file.with_name(f"{file.name}.coming")
            shutil.copy2(source / file, coming, follow_symlinks=False)
            coming.replace(target / file)  # who reads the old one goes on reading it
    for file in seen - here:
        (target / file).unlink(missing_ok=True)
    return here


def _is_same(one: Path, other: Path) -> bool:
    if not (other.exists() or other.is_symlink()):
        return False
    first, second = one.lstat(), other.lstat()
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)
