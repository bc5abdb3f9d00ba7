"""Fetching weights piece by piece: what breaks, what is damaged, what is whole."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from conftest import make_settings
from model_hub import Hub, serving_hub
from pagevec.deploy.modal import weights
from pagevec.deploy.modal.weights import fetch, is_whole
from pagevec.errors import CheckpointError
from pagevec.settings import Settings

WEIGHTS = os.urandom(3_000_000)
REPOSITORIES = {
    "team/pages": {
        "config.json": b"{}",
        "generation_config.json": b"{}",  # the same content, hence the same place
        "model.safetensors": WEIGHTS,
        "README.md": b"not read",
    },
    "team/adapter": {
        "adapter_config.json": b'{"base_model_name_or_path": "team/pages"}',
        "adapter_model.safetensors": b"adapter",
    },
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub asks, with an empty cache."""
    with serving_hub(Hub(REPOSITORIES)) as served:
        template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        yield served


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Settings], list[str]]:
    """Fetches, and returns what was reported; at each commit no file may be open."""

    def run(settings: Settings) -> list[str]:
        said: list[str] = []

        def commit() -> None:
            descriptors = Path("/proc/self/fd").iterdir()
            opened = [str(one.readlink()) for one in descriptors if one.is_symlink()]
            assert not [file for file in opened if file.startswith(str(tmp_path))]
            said.append("commit")

        fetch(settings, commit, said.append)
        return said

    return run


def settings_of(model: str) -> Settings:
    return make_settings(model=model)


def starts(hub: Hub) -> list[int]:
    return [start for name, start in hub.downloads if name == "model.safetensors"]


def test_only_what_is_complete_is_whole(
    hub: Hub, run: Callable[[Settings], list[str]], tmp_path: Path
) -> None:
    """A checkpoint is whole with all of its files and those of its base; the hub is not asked."""
    adapter, base = settings_of("team/adapter"), settings_of("team/pages")
    assert not is_whole(base)
    said = run(base)
    assert said[0] == "team/pages: 3 files, 3.0 MB, of which 3.0 MB to download"
    assert said[-1] == "team/pages: complete"
    hub.token = "asked for from now on"
    assert is_whole(base)
    assert not is_whole(adapter)
    hub.token = ""
    run(adapter)
    hub.token = "asked for from now on"
    assert is_whole(adapter)
    [model] = tmp_path.rglob("snapshots/*/model.safetensors")
    assert model.read_bytes() == WEIGHTS
    model.unlink()
    assert not is_whole(adapter)
    assert is_whole(settings_of("bundled"))


def test_connections_that_break(hub: Hub, run: Callable[[Settings], list[str]]) -> None:
    """Each time it goes on where it was, and in the end all of it is right."""
    hub.breaks_after = [0, 1_000_000, 1_000_000, 2_000_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_LONGEST_PAUSE", 0.1)
        run(settings_of("team/pages"))
    assert is_whole(settings_of("team/pages"))
    assert starts(hub) == [0, 0, 1_000_000, 1_000_000, 2_000_000]


def test_rounds_end(hub: Hub, run: Callable[[Settings], list[str]]) -> None:
    """A round takes its seconds, then it is committed and the next one asks for the rest."""
    hub.bytes_per_second = 3_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_ROUND_SECONDS", 0.2)
        said = run(settings_of("team/pages"))
    assert said.count("commit") > 2
    assert len(starts(hub)) > 1
    assert starts(hub) == sorted(set(starts(hub)))
    assert is_whole(settings_of("team/pages"))


def test_a_mirror_without_ranges(
    hub: Hub, run: Callable[[Settings], list[str]], tmp_path: Path
) -> None:
    """A hub that sends whole files only is given the time for it, and what was there is dropped."""
    hub.knows_ranges, hub.bytes_per_second = False, 10_000_000
    hub.breaks_after = [1_000_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_ROUND_SECONDS", 0.1)
        patch.setattr(weights, "_LONGEST_PAUSE", 0.1)
        run(settings_of("team/pages"))
    [model] = tmp_path.rglob("snapshots/*/model.safetensors")
    assert model.read_bytes() == WEIGHTS


def test_a_damaged_file(hub: Hub, run: Callable[[Settings], list[str]], tmp_path: Path) -> None:
    """A file that is not what the hub announced is not kept, and the next try gets it anew."""
    hub.damages = "model.safetensors"
    with pytest.raises(CheckpointError, match=r"model\.safetensors arrived damaged"):
        run(settings_of("team/pages"))
    assert not is_whole(settings_of("team/pages"))
    assert not list(tmp_path.rglob("*.part"))
    hub.damages = ""
    run(settings_of("team/pages"))
    assert is_whole(settings_of("team/pages"))


def test_a_hub_that_falls_silent(hub: Hub, run: Callable[[Settings], list[str]]) -> None:
    """After several tries that bring nothing it ends with the reason; what came is kept."""
    hub.breaks_after = [1_000_000, *[0] * 20]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_LONGEST_PAUSE", 0.01)
        with pytest.raises(CheckpointError, match=r"team/pages cannot be fetched: .*peer closed"):
            run(settings_of("team/pages"))
    hub.breaks_after = []
    hub.downloads.clear()
    run(settings_of("team/pages"))
    assert starts(hub) == [1_000_000]
