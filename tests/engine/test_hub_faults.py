"""A hub that is down, busy, or refuses: each its own sentence, within seconds."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from answering import Answering, answering
from checkpoints import build_checkpoint
from model_hub import Hub, serving_hub
from pagevec.engine.models.hub import is_reachable, telling_progress
from pagevec.errors import CheckpointError
from processes import environment, run_to_the_end, serving

pytestmark = pytest.mark.long

NAME = "somebody/something"


@contextmanager
def hub(
    status: int, code: str = "", *, silent: bool = False, folder: Path | None = None
) -> Iterator[str]:
    """Serve a hub that answers `status` with an error's `code`, or never; or has one `folder`."""
    ended = threading.Event()

    class Handler(Answering):
        def do_HEAD(self) -> None:
            if silent:
                ended.wait(60)
                return
            file = folder / self.path.rpartition("/")[2] if folder else None
            found = file is not None and file.is_file()
            content = file.read_bytes() if file and found else json.dumps({"error": code}).encode()
            reason = "EntryNotFound" if folder else code
            self.answer(
                200 if found else 404 if folder else status,
                content,
                **({"X-Error-Code": reason} if reason else {}),
                X_Repo_Commit="0123456789abcdef0123456789abcdef01234567",
                ETag=f'"{abs(hash(content)):x}"',
                Retry_After="3600",
            )

        do_GET = do_HEAD

    try:
        with answering(Handler) as url:
            yield url
    finally:
        ended.set()


def settings_of(folder: Path, url: str, **variables: str) -> dict[str, str]:
    home = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1"}
    return environment(**{"PAGEVEC_MODEL": NAME, "PAGEVEC_DEVICE": "cpu", **home, **variables})


def refusal(folder: Path, url: str, **variables: str) -> str:
    """Return the one line that a start ends with."""
    done = run_to_the_end(folder, settings_of(folder, url, **variables))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "startup failed" in line]
    assert NAME in line
    assert "no config.json" not in line
    return line


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (429, "", "refuses more requests for now (429)"),
        (500, "", "is down (500)"),
        (503, "", "is down (503)"),
        (401, "RepoNotFound", "or it is private"),
        (404, "RepoNotFound", "there is no such folder here"),
        (404, "RevisionNotFound", "correct PAGEVEC_REVISION"),
        (403, "GatedRepo", "access is granted on request"),
        (403, "", "refuses us (403); set HUGGINGFACE_TOKEN"),
        (418, "", "answers 418; check the name, and HF_ENDPOINT"),
    ],
)
def test_what_the_hub_answers(
    status: int, code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer has its own sentence, however long the hub asks us to wait."""
    with hub(status, code) as url, pytest.raises(CheckpointError) as refused:
        _ask_hub(monkeypatch, url)
        is_reachable(NAME, None, None)
    assert said in str(refused.value)
    assert NAME in str(refused.value)
    assert "no config.json" not in str(refused.value)


def test_a_start_ends_with_the_sentence(tmp_path: Path) -> None:
    """The sentence is the one line that a start ends with, and its exit code says so, too."""
    with hub(503) as url:
        assert "is down (503)" in refusal(tmp_path, url)


def _ask_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let huggingface_hub in this process ask the hub at `url`."""
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_download_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is downloaded, how much of it is there, and how fast it comes."""
    slow = Hub({NAME: {"model.safetensors": bytes(60_000_000)}}, bytes_per_second=10_000_000)
    monkeypatch.setattr("pagevec.engine.models.hub._TELL_SECONDS", 1.0)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with serving_hub(slow) as served, caplog.at_level(logging.INFO, "pagevec"):
        _ask_hub(monkeypatch, served.url)
        with telling_progress([NAME], None):
            snapshot_download(NAME, cache_dir=tmp_path)
    said = rf"downloading {NAME}: 0\.0[1-5] GB of at most 0\.06 GB, [\d.]+ MB/s"
    assert re.search(said, caplog.text), caplog.text


@pytest.mark.parametrize(("status", "silent"), [(200, True), (429, False), (500, False)])
def test_the_hub_is_asked_for_seconds(
    status: int, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither silence nor `Retry-After: 3600` keeps the start waiting."""
    started = time.monotonic()
    with hub(status, silent=silent) as url, pytest.raises(CheckpointError, match=url) as refused:
        _ask_hub(monkeypatch, url)
        is_reachable(NAME, None, None)
    assert ("cannot be reached" in str(refused.value)) == silent
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://hub.invalid"])
def test_a_hub_that_does_not_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on and a name that is not known: not to be reached."""
    _ask_hub(monkeypatch, url)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        is_reachable(NAME, None, None)


@pytest.mark.parametrize("variable", ["PAGEVEC_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_without_the_files(variable: str, tmp_path: Path) -> None:
    """Offline is named as the reason, with the folder of the cache."""
    line = refusal(tmp_path, "http://127.0.0.1:9", **{variable: "1"})
    assert "must not be asked (PAGEVEC_OFFLINE or HF_HUB_OFFLINE)" in line
    assert str(tmp_path / "home") in line


def test_what_was_downloaded_serves_without_the_hub(tmp_path: Path) -> None:
    """A checkpoint in the cache is served while the hub is away, with a warning in the log."""
    made = build_checkpoint("colqwen2_5", tmp_path / "made")
    with hub(200, folder=made) as url, serving(tmp_path, settings_of(tmp_path, url)) as process:
        assert process.popen.poll() is None
    for variables in ({}, {"PAGEVEC_OFFLINE": "true"}):
        settings = settings_of(tmp_path, "http://127.0.0.1:9", **variables)
        with serving(tmp_path, settings) as process:
            log = process.log.read_text()
        assert ("the files in the cache are used" in log) == (not variables)
