"""What is packed and what it needs: the wheel, the source distribution, the lowest versions."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# Their lowest versions are not run: other builds of torch take gigabytes.
_NOT_LOWEST = {"torch", "torchvision"}


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


def read_pins(name: str) -> dict[str, Version]:
    """Return the versions in a file of constraints at the root, by package."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, _, version in pins}


def floor_of(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement allows."""
    bounds = {one.operator: Version(one.version) for one in requirement.specifier}
    return bounds[">="] if ">=" in bounds else bounds["=="]


def test_lowest_versions_are_run() -> None:
    """Each lowest version that pyproject.toml allows is the one of `make test-lowest`.

    That holds for what the base install, serve, pdf, precision and redis name, also where another
    extra names it again.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    required = {
        extra: [Requirement(text) for text in texts if not text.startswith("pagevec[")]
        for extra, texts in groups.items()
    }
    extras = ("", "serve", "pdf", "precision", "redis")
    run = {one.name for extra in extras for one in required[extra]} - _NOT_LOWEST
    floors = {
        (one.name, floor_of(one)) for ones in required.values() for one in ones if one.name in run
    }
    pins = read_pins("constraints-lowest.txt")
    assert floors == {(name, pins.get(name)) for name in run}


def test_what_is_not_lowest() -> None:
    """With the lowest versions run torch and the tools of the tests as in all other tests."""
    lowest, tested = read_pins("constraints-lowest.txt"), read_pins("constraints.txt")
    for name in (*_NOT_LOWEST, "hypothesis", "jsonschema", "pytest", "pytest-timeout"):
        assert lowest[name] == tested[name], name


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
