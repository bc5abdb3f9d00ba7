"""Environments of their own for packages that clash with the tests' own, made once and kept."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import pagevec

_KEPT = Path(__file__).parents[2] / ".venv-clients"


def python_with(*packages: str) -> Path:
    """Return an interpreter that has `packages`, beside those of this environment.

    It is kept in the checkout, below `.venv-clients`. Where it cannot be made, the test is skipped.
    """
    name = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:12]
    home = _KEPT / name
    python = home / "bin" / "python"
    if (home / "complete").exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=False)
    # What is installed here already is taken from here, torch above all.
    [own] = (home / "lib").glob("python*/site-packages")
    beside = [sysconfig.get_path("purelib"), str(Path(pagevec.__file__).parents[1])]
    (own / "beside.pth").write_text("\n".join(beside))
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        capture_output=True,
        text=True,
        timeout=280,
    )
    if done.returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed: {done.stderr[-300:]}")
    (home / "complete").touch()
    return python


def run_client(python: Path, script: str, *arguments: str) -> str:
    """Run a script of this folder with `python`; return what it printed."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PAGEVEC_", "SERVICE_", "OPENAI_"))
    }
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_PROXY": "*"}
    done = subprocess.run(
        [python, Path(__file__).with_name(script), *arguments],
        env={**clean, **offline},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
