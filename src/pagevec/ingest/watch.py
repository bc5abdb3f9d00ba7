"""Tell when documents may have changed: in folders, and files that were named themselves."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pagevec.errors import ConfigurationError
from pagevec.extras import how_to_install
from pagevec.ingest.sources import LOCKS, STORE_FILES
from pagevec.ingest.suffixes import SUFFIXES

_TICK = 0.5  # seconds
_QUIET_MS = 300  # without another change: a file that is being written makes many
_LONGEST_MS = 5_000


def watch_documents(paths: Sequence[Path]) -> Iterator[bool]:
    """Yield, all the time, whether documents may have changed since the last time.

    It is True at first, and when a path is there again, or is another file or folder than before,
    as after a disk was mounted. Hidden files and pagevec's own stores are no documents.

    Args:
        paths: files and folders, which may be gone for a while.

    Raises:
        ConfigurationError: `watchfiles` is missing, or the system does not let it watch.
    """
    places = [path.absolute() for path in paths]
    while True:
        identities, has_changed = [_identify(place) for place in places], True
        for changed in _watch([place for place in places if place.is_dir()]):
            yield has_changed or any(_concerns_documents(file, places) for file in changed)
            has_changed = False
            if [_identify(place) for place in places] != identities:
                break


def _watch(folders: Sequence[Path]) -> Iterator[set[Path]]:
    """Yield the paths that changed below `folders`, and an empty set after a while without any."""
    try:
        from watchfiles import watch
    except ImportError:
        raise ConfigurationError(f"--watch needs {how_to_install('watch')}") from None
    while not folders:
        time.sleep(_TICK)
        yield set()
    try:
        for changes in watch(
            *folders,
            watch_filter=None,
            step=_QUIET_MS,
            debounce=_LONGEST_MS,
            rust_timeout=round(1000 * _TICK),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        ):
            yield {Path(path) for _, path in changes}
    except FileNotFoundError:  # a folder vanished just now
        time.sleep(_TICK)
    except OSError as error:
        raise ConfigurationError(
            f"cannot watch for changes: {error} (WATCHFILES_FORCE_POLLING=true does without the "
            "system's help)"
        ) from None


def _identify(place: Path) -> tuple[int, ...] | None:
    """Return what changes when another file or folder is at `place`; None if there is none."""
    try:
        found = place.stat()
    except OSError:
        return None
    # Changes below a folder are told by `_watch`.
    of_file = () if place.is_dir() else (found.st_mtime_ns, found.st_size)
    return found.st_dev, found.st_ino, *of_file


def _concerns_documents(file: Path, places: Sequence[Path]) -> bool:
    """Whether a change of `file` may be one of a document, or of a folder of documents."""
    for root in (place for place in places if file.is_relative_to(place)):
        parts = file.relative_to(root).parts
        folders = [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
        is_hidden = any(part.startswith((".", *LOCKS)) for part in parts)
        try:
            is_of_store = any((folder / one).exists() for folder in folders for one in STORE_FILES)
            is_other = file.suffix.lower() not in SUFFIXES and file.is_file()
        except OSError:
            return True
        if not (is_hidden or is_of_store or is_other):
            return True
    return False
