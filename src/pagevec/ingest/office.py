"""Office files -> PDF -> pages, where LibreOffice is installed."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.page import Pages
from pagevec.ingest.pdf import open_pdf

OFFICE = frozenset(
    {".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx", ".odp", ".xls", ".xlsx", ".ods"}
)

_SECONDS = 300


@contextmanager
def open_office(document: Path) -> Iterator[Pages]:
    """Convert `document` with LibreOffice and open the PDF.

    Raises:
        InvalidRequest: LibreOffice is not found, or could not convert it.
    """
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        raise InvalidRequest(f"{document}: Office files need LibreOffice (soffice) on the PATH")
    with tempfile.TemporaryDirectory(prefix="pagevec-office-") as folder:
        _convert(program, document, Path(folder))
        with open_pdf(Path(folder) / f"{document.stem}.pdf") as pages:
            yield pages


def _convert(program: str, document: Path, folder: Path) -> None:
    # A profile of its own: LibreOffice runs one process for each profile.
    command = [
        program,
        f"-env:UserInstallation=file://{folder}/profile",
        "--headless",
        "--convert-to",
        "pdf",
        "--outdir",
        str(folder),
        str(document),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise InvalidRequest(f"{document}: LibreOffice took more than {_SECONDS} s") from None
    if done.returncode != 0 or not (folder / f"{document.stem}.pdf").is_file():
        raise InvalidRequest(f"{document}: LibreOffice could not convert it")
