"""The `modal` command line against the stand-in, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULE = ("-m", "pagevec.deploy.modal.app")


def modal(
    plane: Any, *arguments: str, folder: Path | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run `modal` with invalid credentials and without the settings of this machine."""
    return subprocess.run(
        [sys.executable, "-m", "modal", *arguments],
        env=environment(plane, **variables),
        cwd=folder or plane.containers.folder,  # no .env of this machine is read
        capture_output=True,
        text=True,
        timeout=240,
    )


def environment(plane: Any, **variables: str) -> dict[str, str]:
    """Return the environment variables of a user who deploys to `plane`."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PAGEVEC_", "SERVICE_", "MODAL_", "HF_", "HUGGINGFACE_"))
    }
    return {
        **clean,
        "MODAL_SERVER_URL": plane.url,
        "MODAL_TOKEN_ID": "ak-nobody",
        "MODAL_TOKEN_SECRET": "as-nobody",
        "MODAL_CONFIG_PATH": os.devnull,
        "COLUMNS": "200",
        "NO_PROXY": "*",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **variables,
    }
