"""What is packed: the wheel is the package alone, the source distribution can be tested."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_wheel(built: Path) -> None:
    """The wheel has the package, the licence and the pinned versions; no tests, no benchmarks."""
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert "pagevec" in tops and all(top.startswith("pagevec") for top in tops)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {"pagevec/py.typed", "pagevec/deploy/modal/constraints.txt"} <= set(names)
    assert "pagevec/engine/models/weights/model.safetensors" in names


def test_what_readme_installs(built: Path) -> None:
    """README installs a checkout or its wheel, by the name that it has: no index has pagevec."""
    [wheel] = built.glob("*.whl")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in readme.splitlines() if line.startswith("    pip install ")]
    assert lines == ["pip install '.[pdf]'", f"pip install 'dist/{wheel.name}[pdf]'"]


@pytest.mark.long
def test_source_distribution(built: Path, tmp_path: Path) -> None:
    """Every test can be collected in an unpacked source distribution; the licence is in it."""
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    assert (folder / "LICENSE").read_text().lstrip().startswith("Apache License")
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert collected.returncode == 0, collected.stdout[-2000:]
    assert "tests/training/test_export.py" in collected.stdout
