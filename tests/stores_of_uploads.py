"""What a folder of uploads has in it: files that are kept, and what is still on its way."""

from pathlib import Path


def kept(uploads: Path) -> set[str]:
    """Return the names of the files that are kept for documents."""
    return {one.name for one in uploads.iterdir() if one.is_file() and one.name[0] != "."}


def left_over(uploads: Path) -> list[str]:
    """Return what waits or is being received; nothing, once all is done."""
    folders = (uploads / "incoming", uploads / "waiting")
    return [f"{folder.name}/{one.name}" for folder in folders for one in folder.iterdir()]
