"""The commands of the documents, for tests that run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def commands(document: str, mark: str) -> list[str]:
    """Return the shell blocks of a document that stand behind `mark`."""
    text = (DOCS / document).read_text(encoding="utf-8")
    found = re.findall(rf"<!-- {re.escape(mark)} -->\n```bash\n(.*?)```", text, re.S)
    assert found, f"{document} has no block marked {mark!r}"
    return found


def run(block: str, folder: Path, **variables: str) -> str:
    """Run a block of shell commands in `folder`, with the programs of this environment.

    Returns:
        What it printed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, **variables, "PATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
