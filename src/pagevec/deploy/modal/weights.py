"""The weights in a volume: fetched once, found by every container."""

import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

from pagevec.errors import CheckpointError
from pagevec.settings import Settings

COMMAND = "modal run -m pagevec.deploy.modal.app::download"

_READ = (".safetensors", ".json", ".txt", ".model", ".jinja")
_GB = 1e9


def fetch(settings: Settings, tell: Callable[[str], None]) -> None:
    """Download the checkpoint that `settings` name, and the base of an adapter.

    Files that are there already are not fetched again. `tell` gets a line after each file.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: there is no such checkpoint, or no permission.
    """
    if not _is_on_the_hub(settings.model):
        tell(f"{settings.model} needs no download")
        return
    token = settings.huggingface_token
    secret = token.get_secret_value() if token else None
    adapter = _fetch_all(settings.model, settings.revision, secret, tell)
    if adapter is not None:
        _fetch_all(json.loads(adapter.read_text())["base_model_name_or_path"], None, secret, tell)


def require(settings: Settings, volume: str) -> None:
    """See that the checkpoint that `settings` name is here.

    Raises:
        CheckpointError: it is not; says which command fills `volume`.
    """
    known = ("config.json", "adapter_config.json")
    if _is_on_the_hub(settings.model) and not any(_cached(settings, file) for file in known):
        raise CheckpointError(
            f"the volume {volume!r} does not hold {settings.model}: run `{COMMAND}` "
            "with the same PAGEVEC_MODEL, then ask again"
        )


def _is_on_the_hub(model: str) -> bool:
    return "/" in model and not Path(model).is_absolute()


def _cached(settings: Settings, file: str) -> bool:
    return isinstance(try_to_load_from_cache(settings.model, file, revision=settings.revision), str)


def _fetch_all(
    repository: str, revision: str | None, token: str | None, tell: Callable[[str], None]
) -> Path | None:
    """Fetch what is read of a repository; return its adapter_config.json, if it has one."""
    info = HfApi(token=token).model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = [name for name in sizes if name.endswith(_READ) and "/" not in name]
    total, done, adapter = sum(sizes[name] for name in wanted), 0, None
    for number, name in enumerate(wanted, start=1):
        # By branch or tag, as it is looked up later: the cache notes which commit that was.
        path = hf_hub_download(repository, name, revision=revision, token=token)
        adapter = Path(path) if name == "adapter_config.json" else adapter
        done += sizes[name]
        share = f"{done / _GB:.2f} of {total / _GB:.2f} GB"
        tell(f"{repository}: {number} of {len(wanted)} files, {share}: {name}")
    return adapter
