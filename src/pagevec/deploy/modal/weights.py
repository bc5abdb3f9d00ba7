"""The weights in the volume: are they whole, and how they are fetched from the hub, piece by piece.

huggingface_hub begins a file anew when the process that fetched it was killed. Here each file grows
in rounds of seconds, beside its place in the hub's cache. After a round no file is open, so that
the volume can be committed, and the next round, in whatever process, asks for the rest (`Range`).
Files are named by their hash, which is checked at the end, so even two processes that fetch into
one volume would cost no more than time. At last huggingface_hub makes its cache of these files.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from huggingface_hub import (
    DryRunFileInfo,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
    hf_raise_for_status,
)

from pagevec.engine.models import hub
from pagevec.engine.models.files import describe, read_json, reading
from pagevec.errors import CheckpointError
from pagevec.secrets import mask_secrets
from pagevec.settings import Settings

Report = Callable[[str], None]

_PATTERNS: dict[str, Any] = {
    "allow_patterns": ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"],
    "ignore_patterns": ["*/*"],
}
_ROUND_SECONDS = 10.0
_AT_ONCE = 4
_SILENCE_SECONDS = 30.0  # of the hub, until a connection counts as broken
_MOST_STUMBLES = 6  # rounds in a row that bring nothing
_LONGEST_PAUSE = 30.0
_SHA256_DIGITS = 64  # other files are named by git, whose hash covers more than their content
_MB, _GB = 1e6, 1e9


def is_whole(settings: Settings) -> bool:
    """Return whether all files of the checkpoint that `settings` name are there, and of its base.

    The hub is not asked.
    """
    if not _is_on_the_hub(settings.model):
        return True
    folder = _whole_folder(settings.model, settings.revision)
    if folder is None:
        return False
    base = _base_of(folder)
    return base is None or _whole_folder(base, None) is not None


def fetch(settings: Settings, commit: Callable[[], None], report: Report) -> None:
    """Fetch the checkpoint that `settings` name, and the base of an adapter.

    What is already there is not fetched again.

    Args:
        settings: name the checkpoint, its revision and the token of the hub.
        commit: called when no file is open and there is more than before; makes it last.
        report: called with a line about what is fetched, how much of it, and how fast.

    Raises:
        CheckpointError: it cannot be had; with the reason, and what to do.
    """
    if not _is_on_the_hub(settings.model):
        report(f"{settings.model} needs no download")
        return
    disable_progress_bars()
    token = settings.huggingface_token
    secret = token.get_secret_value() if token else None
    folder = _fetch_repository(settings.model, settings.revision, secret, commit, report)
    base = _base_of(folder)
    if base is not None:
        _fetch_repository(base, None, secret, commit, report)


@dataclass(frozen=True)
class _File:
    """A file of a repository, on its way to its place in the cache.

    Attributes:
        name: in the repository.
        url: where the hub has it.
        size: bytes.
        blob: its place, named by its hash.
    """

    name: str
    url: str
    size: int
    blob: Path

    @property
    def part(self) -> Path:
        """What is there so far, unless it is whole."""
        return self.blob.with_name(f"{self.blob.name}.part")

    @property
    def bytes_here(self) -> int:
        """Bytes that are there."""
        if self.blob.exists():
            return self.size
        return self.part.stat().st_size if self.part.exists() else 0

    def fetch_more(self, headers: dict[str, str], end: float) -> Exception | None:
        """Fetch the rest, or what comes until the clock shows `end`.

        Returns:
            What went wrong, if something did.
        """
        if time.monotonic() > end:
            return None
        try:
            self._append(headers, end)
            self._finish()
        except Exception as error:
            return error
        return None

    def _append(self, headers: dict[str, str], end: float) -> None:
        with self.part.open("ab") as part:
            start = part.tell()
            if start >= self.size:
                return
            wanted = {**headers, "Range": f"bytes={start}-", "Accept-Encoding": "identity"}
            request = get_session().stream(
                "GET", self.url, headers=wanted, timeout=_SILENCE_SECONDS
            )
            with request as answer:
                hf_raise_for_status(answer)
                in_part = answer.status_code == HTTPStatus.PARTIAL_CONTENT
                if not in_part:  # a mirror that has files only as a whole
                    part.truncate(0)
                for piece in answer.iter_bytes():
                    part.write(piece)
                    if in_part and time.monotonic() > end:
                        return

    def _finish(self) -> None:
        """Move the file to its place, if all of it is there.

        Raises:
            CheckpointError: it is not what the hub announced; it is removed.
        """
        if self.bytes_here < self.size:
            return
        if not self._is_as_announced():
            self.part.unlink()
            raise CheckpointError(f"{self.name} arrived damaged")
        self.part.replace(self.blob)

    def _is_as_announced(self) -> bool:
        if self.bytes_here != self.size or len(self.blob.name) != _SHA256_DIGITS:
            return self.bytes_here == self.size
        with self.part.open("rb") as part:
            return hashlib.file_digest(part, "sha256").hexdigest() == self.blob.name


def _is_on_the_hub(model: str) -> bool:
    return "/" in model and not Path(model).is_absolute()


def _whole_folder(name: str, revision: str | None) -> Path | None:
    try:
        folder = snapshot_download(name, revision=revision, local_files_only=True, **_PATTERNS)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    # Of a download by an older huggingface_hub, the cache does not know which files it has to have.
    return Path(folder) if hub.cached_folder(name, revision) is not None else None


def _base_of(folder: Path) -> str | None:
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return None
    base = read_json(adapter).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(f"{adapter} does not name a base model")
    return str(base)


def _fetch_repository(
    name: str, revision: str | None, token: str | None, commit: Callable[[], None], report: Report
) -> Path:
    """Fetch what is read of a repository; return the folder."""
    if not hub.is_reachable(name, revision, token):
        raise CheckpointError(f"{name}: the hub ({constants.ENDPOINT}) does not answer")
    with reading(f"{name} cannot be fetched"):
        # By the revision's own name, as it is looked up later: the cache notes which commit it is.
        download = partial(snapshot_download, name, revision=revision, token=token, **_PATTERNS)
        listed: Sequence[DryRunFileInfo] = download(dry_run=True)  # type: ignore[assignment]
        missing = [one for one in listed if one.will_download]
        size, wanted = (sum(one.file_size or 0 for one in some) for some in (listed, missing))
        report(f"{name}: {len(listed)} files, {_size(size)}, of which {_size(wanted)} to download")
        headers = build_hf_headers(token=token)
        found = [_find(name, one.filename, one.commit_hash, token) for one in missing]
        files = list({file.blob: file for file in found}.values())  # some are alike
        _fetch_files(name, files, headers, commit, report)
        folder = Path(download())
        commit()
    report(f"{name}: complete")
    return folder


def _find(repository: str, name: str, commit_hash: str, token: str | None) -> _File:
    url = hf_hub_url(repository, name, revision=commit_hash)
    found = get_hf_file_metadata(url, token=token)
    if found.size is None or found.etag is None or not found.etag.isalnum():
        raise CheckpointError(f"{repository}: the hub does not give size and hash of {name}")
    return _File(name, url, found.size, hub.blobs_folder(repository) / found.etag)


def _fetch_files(
    repository: str,
    files: Sequence[_File],
    headers: dict[str, str],
    commit: Callable[[], None],
    report: Report,
) -> None:
    """Fetch `files` in rounds, until all of them are in their place.

    Raises:
        CheckpointError: a file arrived damaged, or several rounds in a row brought nothing.
    """
    for file in files:
        file.blob.parent.mkdir(parents=True, exist_ok=True)
    size, stumbles = sum(file.size for file in files), 0
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        while left := [file for file in files if not file.blob.exists()]:
            started, before = time.monotonic(), _count_bytes(files)
            faults = threads.map(
                lambda file, end=started + _ROUND_SECONDS: file.fetch_more(headers, end), left
            )
            fault = next(filter(None, list(faults)), None)
            here, seconds = _count_bytes(files), time.monotonic() - started
            commit()
            if isinstance(fault, CheckpointError):
                raise fault
            report(
                f"{repository}: {_size(here)} of {_size(size)}, "
                f"{(here - before) / seconds / _MB:.1f} MB/s"
            )
            if here > before:
                stumbles = 0
                continue
            stumbles += 1
            reason = "the hub sends nothing" if fault is None else describe(fault)
            if stumbles == _MOST_STUMBLES:
                raise CheckpointError(f"{repository} cannot be fetched: {reason}")
            report(mask_secrets(f"{repository}: interrupted ({reason}); it goes on soon"))
            time.sleep(min(2.0**stumbles, _LONGEST_PAUSE))


def _count_bytes(files: Sequence[_File]) -> int:
    return sum(file.bytes_here for file in files)


def _size(count: int) -> str:
    return f"{count / _GB:.2f} GB" if count >= _GB else f"{count / _MB:.1f} MB"
