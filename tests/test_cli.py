"""The command line, as a person uses it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import EXAMPLES, KEY, Service, pagevec
from pagevec.engine.models.registry import FAMILIES


def arrays_in(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def test_models_lists_every_family() -> None:
    """`pagevec models` names what can be served."""
    printed = pagevec("models").stdout
    assert all(family.name in printed for family in FAMILIES)


def test_serve_help_shows_the_settings() -> None:
    """`pagevec serve --help` names each variable, what it takes and its default."""
    printed = " ".join(pagevec("serve", "--help").stdout.split())
    for word in ("PAGEVEC_PORT", "at most 65,535", "8765", "SERVICE_API_KEY", "HF_HOME", "--demo"):
        assert word in printed


def test_embed_in_process_and_over_http_agree(service: Service, tmp_path: Path) -> None:
    """The same files give the same vectors in this process and through a service, by name."""
    files = [EXAMPLES / "receipt.png", EXAMPLES / "notes.txt"]
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    done = pagevec("embed", *files, "--out", here, "--model", "bundled")
    assert done.returncode == 0, done.stderr
    done = pagevec("embed", *files, "--out", there, "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    one, other = arrays_in(here), arrays_in(there)
    assert list(one["names"]) == list(other["names"]) == ["receipt.png#1", "notes.txt#1"]
    for name in ("emb_0", "emb_1"):
        assert one[name].dtype == np.float32
        assert np.abs(one[name] - other[name]).max() <= 1e-4


def test_embed_takes_a_folder(service: Service, tmp_path: Path) -> None:
    """Every page of every document in a folder is embedded, in order."""
    out = tmp_path / "all.npz"
    done = pagevec("embed", EXAMPLES, "--out", out, "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "8 pages" in done.stdout
    assert arrays_in(out)["names"].tolist()[:2] == ["annual-report.pdf#1", "annual-report.pdf#2"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("nothing.pdf", None, "there is no file"),
        ("table.zip", b"PK", "of no kind that is read"),
        ("broken.pdf", b"%PDF-1.4 and no more", "cannot be opened"),
        ("broken.png", b"\x89PNG\r\n\x1a\n and no more", "image"),
    ],
)
def test_embed_bad_files(
    file: str, content: bytes | None, said: str, service: Service, tmp_path: Path
) -> None:
    """A file that cannot be read ends with a sentence that names it, and no traceback."""
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    done = pagevec("embed", path, "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_check_passes(service: Service) -> None:
    """Every check passes against a good service: PASS lines, exit code 0."""
    done = pagevec("check", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert done.stdout.count("PASS") >= 10


def test_check_fails(service: Service) -> None:
    """With a wrong key the checks that need one fail, and the exit code says so."""
    done = pagevec("check", service.url, "--key", "wrong")
    assert done.returncode == 1
    assert "FAIL  key is accepted" in done.stdout
    assert "PASS  wrong key is refused" in done.stdout


def test_check_nobody_there() -> None:
    """Nothing listens: every check fails with a reason, none with a traceback."""
    done = pagevec("check", "http://127.0.0.1:9", "--key", "any")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_an_unknown_model_ends_the_start() -> None:
    """`serve` with a checkpoint that is not there says so, and exits 1."""
    done = pagevec("serve", "--model", "/nowhere/model", "--offline", "true", "--port", 0)
    assert done.returncode == 1
    assert "/nowhere/model" in done.stderr
