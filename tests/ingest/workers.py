"""Ingestion workers as processes of their own, and documents that are cheap to embed."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reportlab.pdfgen.canvas import Canvas

from conftest import KEY, Service


def small_pdf(path: Path, pages: int) -> Path:
    """Write a PDF of many small pages: cheap to embed, each of its own."""
    canvas = Canvas(str(path), pagesize=(60, 60))
    for number in range(1, pages + 1):
        canvas.drawString(5, 25, f"page {number}")
        canvas.showPage()
    canvas.save()
    return path


def start(service: Service, store: str | Path, *paths: Path) -> "subprocess.Popen[bytes]":
    """Start `pagevec ingest` of `paths`, in the folder of the first."""
    options = ("--store", store, "--url", service.url, "--lease-seconds", 0.5)
    arguments: Sequence[object] = ("ingest", *paths, *options)
    return subprocess.Popen(
        [sys.executable, "-c", "from pagevec.cli import main; main()", *map(str, arguments)],
        env={**os.environ, "SERVICE_API_KEY": KEY},
        cwd=paths[0].parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
