"""The small files of a checkpoint: what they hold, and how they are written."""

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Files = dict[str, Json | str]
"""File names and their contents, text or JSON."""


def _dumps(content: Json) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_files(directory: Path, files: Files) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else _dumps(content)
        (directory / name).write_text(text, encoding="utf-8")
