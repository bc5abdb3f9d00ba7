"""The model hub: is a checkpoint there, may we have it, and what to say if not.

The hub is asked once, briefly and without retries, before anything is loaded: libraries ask for
each file, wait longer each time, and call a hub that is down a checkpoint without files.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pagevec.engine.models.files import describe
from pagevec.errors import CheckpointError

log = logging.getLogger(__name__)

_ASK_SECONDS = 8.0
_BUSY = HTTPStatus.TOO_MANY_REQUESTS
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_FIRST_FILES = ("config.json", "adapter_config.json")
_TELL_SECONDS = 5.0


def is_reachable(name: str, revision: str | None, token: str | None) -> bool:
    """Ask the hub for the checkpoint `name`.

    Returns:
        True if the hub has it and lets us have it; False if the hub does not answer and the
        checkpoint is in the cache.

    Raises:
        CheckpointError: it cannot be had, with the reason and what to do.
    """
    try:
        url = hf_hub_url(name, _FIRST_FILES[0], revision=revision)
        get_hf_file_metadata(url, token=token, timeout=_ASK_SECONDS)
    except EntryNotFoundError:
        return True  # an adapter has no config.json
    except OfflineModeIsEnabled:
        require_cached(name, revision)
        return False
    except Exception as error:
        said = _explain(error, name, revision)
        if not _may_pass(error) or cached_folder(name, revision) is None:
            raise CheckpointError(said) from None
        log.warning("%s; the files in the cache are used", said)
        return False
    return True


def require_cached(name: str, revision: str | None) -> None:
    """Check that the checkpoint `name` was downloaded before.

    Raises:
        CheckpointError: it was not, and the hub must not be asked.
    """
    try:
        hf_hub_url(name, _FIRST_FILES[0])  # refuses what is no name
    except HFValidationError as error:
        raise CheckpointError(_explain(error, name, revision)) from None
    if cached_folder(name, revision) is None:
        raise CheckpointError(
            f"{name}: there is no such folder here, it is not in the cache "
            f"({constants.HF_HUB_CACHE}), and the hub must not be asked (PAGEVEC_OFFLINE or "
            "HF_HUB_OFFLINE): download it once with access to the hub"
        )


def cached_folder(name: str, revision: str | None) -> Path | None:
    """Return the folder of the checkpoint `name`: its own, or that of its files in the cache."""
    if Path(name).is_dir():
        return Path(name)
    try:
        found = [try_to_load_from_cache(name, file, revision=revision) for file in _FIRST_FILES]
    except HFValidationError:
        return None
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


@contextmanager
def telling_progress(names: Sequence[str], token: str | None) -> Iterator[None]:
    """Log what the block downloads, how much of it is there, and how fast it comes.

    Args:
        names: of the checkpoints on the hub that it may download.
        token: of the hub.
    """
    ended = threading.Event()
    for name in names:
        threading.Thread(target=_tell, args=(name, token, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _tell(name: str, token: str | None, ended: threading.Event) -> None:
    folder = blobs_folder(name)
    before, at, whole = _bytes_in(folder), time.monotonic(), ""
    while not ended.wait(_TELL_SECONDS):
        here, now = _bytes_in(folder), time.monotonic()
        if here > before:
            whole = whole or _describe_whole(name, token)
            speed = (here - before) / (now - at) / 1e6
            log.info("downloading %s: %.2f GB%s, %.1f MB/s", name, here / 1e9, whole, speed)
        before, at = here, now


def blobs_folder(name: str) -> Path:
    """Return the folder of the cache that has the files of the checkpoint `name`, by their hash."""
    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"


def _bytes_in(folder: Path) -> int:
    with suppress(OSError):  # it is not there yet, or a file has just got its name
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def _describe_whole(name: str, token: str | None) -> str:
    with suppress(Exception):  # it is worth no failure
        files = HfApi(token=token).model_info(name, files_metadata=True, timeout=_ASK_SECONDS)
        sizes = [file.size or 0 for file in files.siblings or []]
        return f" of at most {sum(sizes) / 1e9:.2f} GB"
    return " so far"


def _explain(error: Exception, name: str, revision: str | None) -> str:
    """Return what the hub's answer, or its silence, means for the checkpoint `name`."""
    hub = f"the hub ({constants.ENDPOINT})"
    allow = "set HUGGINGFACE_TOKEN to a token of an account that may read it"
    match error:
        case HFValidationError():
            said = "it is neither a folder here nor a name on the hub (OWNER/NAME)"
        case GatedRepoError():
            said = f"access is granted on request: ask for it on its page of {hub}, and {allow}"
        case RevisionNotFoundError():
            said = f"{hub} has no revision {revision!r} of it; correct PAGEVEC_REVISION"
        case RepositoryNotFoundError():
            said = f"there is no such folder here, and {hub} has none, or it is private: {allow}"
        case HfHubHTTPError(response=response) if response.status_code == _BUSY:
            said = f"{hub} refuses more requests for now (429); try again later, or {allow}"
        case HfHubHTTPError(response=response) if response.status_code in _REFUSALS:
            said = f"{hub} refuses us ({response.status_code}); {allow}"
        case HfHubHTTPError(response=response) if _may_pass(error):
            said = f"{hub} is down ({response.status_code}); try again later"
        case HfHubHTTPError(response=response):
            said = f"{hub} answers {response.status_code}; check the name, and HF_ENDPOINT"
        case _:
            said = f"{hub} cannot be reached ({describe(error)}); check the network"
    return f"{name}: {said}"


def _may_pass(error: Exception) -> bool:
    """Whether the hub may answer otherwise soon: it was not reached, is down, or too busy."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status == _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return not isinstance(error, HFValidationError)
