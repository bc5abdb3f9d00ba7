"""Ctrl-C in the middle of the work: the command says how far it came, and nothing is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import KEY, Service, pagevec

pytestmark = [pytest.mark.long, pytest.mark.alone]

_TEXTS = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of documents that take some time."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(_TEXTS):
        (documents / f"{number:04}.txt").write_text(f"the fares of route {number} " * 20)
    return tmp_path


def interrupted(command: str, folder: Path, service: Service, has_begun: Callable[[], bool]) -> str:
    """Press Ctrl-C once the first pages are done; return what was said."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "pagevec", command, "documents", "--url", service.url],
        cwd=folder,
        env={**os.environ, "SERVICE_API_KEY": KEY},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not has_begun():
        time.sleep(0.2)
    popen.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, errors = popen.communicate(timeout=30)
    assert time.monotonic() - sent < 2.5
    assert popen.returncode == 130, errors
    assert "Traceback" not in errors
    return errors


def test_ingest(folder: Path, service: Service) -> None:
    """It says how many pages are stored, and so many are; the same command stores the others."""

    def has_begun() -> bool:
        listed = pagevec("documents", cwd=folder).stdout
        return re.search(r"^ +[1-9]", listed, re.MULTILINE) is not None

    said = interrupted("ingest", folder, service, has_begun)
    found = re.search(r"interrupted: ([\d,]+) of ([\d,]+) pages? are stored", said)
    assert found is not None, said
    told = int(found[1].replace(",", ""))
    listed = pagevec("documents", cwd=folder).stdout
    stored = sum(map(int, re.findall(r"^ *(\d+)", listed, re.MULTILINE)))
    assert 0 < told <= stored < _TEXTS
    again = pagevec("ingest", "documents", "--url", service.url, cwd=folder, SERVICE_API_KEY=KEY)
    assert again.returncode == 0, again.stderr


def test_embed(folder: Path, service: Service) -> None:
    """The pages that came until then are in FILE.part, and a second run leaves them alone."""
    draft = folder / "embeddings.npz.part"
    said = interrupted(
        "embed", folder, service, lambda: draft.exists() and draft.stat().st_size > 20_000
    )
    with np.load(draft) as kept:
        names = kept["names"].tolist()
        assert names and kept[f"emb_{len(names) - 1}"].shape[1] == 128
    assert f"{len(names):,} page" in said and str(draft.name) in said
    before = draft.read_bytes()
    one = folder / "documents" / "0001.txt"
    again = pagevec("embed", one, "--url", service.url, cwd=folder, SERVICE_API_KEY=KEY)
    assert again.returncode == 0, again.stderr
    assert draft.read_bytes() == before
    assert again.stdout.startswith("1 page, ")
