"""The integrations with the frameworks themselves, in an environment that has them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import EXAMPLES
from integrations.environment import framework_python

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NOTEBOOK = EXAMPLES / "answer.ipynb"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

_STRICT = """[mypy]
strict = True
plugins = pydantic.mypy
mypy_path = src
namespace_packages = True
explicit_package_bases = True
follow_imports = silent
ignore_missing_imports = True
"""


def run(*arguments: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run a module with the interpreter that has the frameworks; return what it printed."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("PAGEVEC", "SERVICE_"))}
    # Haystack reports what pipelines are made of to its makers, unless it is told not to.
    quiet = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LANGSMITH_TRACING": "false", "NO_PROXY": "*"}
    done = subprocess.run(
        [framework_python(), *arguments],
        env={**clean, **quiet, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("framework", ["langchain", "llamaindex", "haystack"])
def test_framework(framework: str) -> None:
    """All cases of the framework pass with its real package, and none is skipped."""
    printed = run("-m", "pytest", "-p", "no:cacheprovider", "-rs", HERE / f"{framework}_cases.py")
    assert "passed" in printed or "[100%]" in printed
    assert "SKIPPED" not in printed


def test_types(tmp_path: Path) -> None:
    """The types hold for those of the frameworks; where linters run these are not installed."""
    config = tmp_path / "mypy.ini"
    config.write_text(_STRICT)
    cache = framework_python().parents[1] / "mypy-cache"
    options = "--config-file", config, "--cache-dir", cache
    assert "no issues found" in run("-m", "mypy", *options, "src/pagevec/integrations")


def printed_by(cells: list[list[dict[str, Any]]]) -> list[str]:
    """Return what each cell of a notebook wrote to its output."""
    return [
        "".join("".join(one["text"]) for one in outputs if one.get("name") == "stdout")
        for outputs in cells
    ]


def test_notebook(tmp_path: Path) -> None:
    """It runs from PDFs to a prompt in a kernel of its own; the outputs kept in it are those."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for file in EXAMPLES.iterdir():
        if file.suffix in {".pdf", ".png", ".txt"}:
            shutil.copy(file, folder)
    home = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    printed = run(HERE / "run_notebook.py", NOTEBOOK, folder, cwd=tmp_path, **home)
    cells = json.loads(printed.splitlines()[-1])["cells"]
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    kept_outputs = [cell["outputs"] for cell in kept if cell["cell_type"] == "code"]
    assert printed_by(cells) == printed_by(kept_outputs)
    assert "examples/annual-report.pdf page 4" in "".join(printed_by(cells))
    assert "".join(printed_by(cells)).count("data:image/jpeg;base64,/9j/") == 2
    shown = [one["data"] for outputs in cells for one in outputs if "data" in one]
    assert ["image/jpeg" in data for data in shown] == [True]
