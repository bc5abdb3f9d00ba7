"""The example documents can be made again, and come out as they are kept."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def text_of(path: Path) -> list[str]:
    pdfium = pytest.importorskip("pypdfium2")
    with pdfium.PdfDocument(path) as document:
        return [page.get_textpage().get_text_bounded() for page in document]


def test_maker_gives_the_kept_documents(tmp_path: Path) -> None:
    reportlab = pytest.importorskip("reportlab")
    pytest.importorskip("PIL")
    maker = EXAMPLES / "make_examples.py"
    subprocess.run([sys.executable, str(maker), "--out", str(tmp_path)], check=True)

    made, kept = tmp_path / "annual-report.pdf", EXAMPLES / "annual-report.pdf"
    pages = text_of(made)
    assert len(pages) == 6
    assert [n for n, page in enumerate(pages, 1) if "41,983" in page] == [3]
    assert "Öffnungszeiten und Anschriften" in pages[5]
    assert pages == text_of(kept)
    if reportlab.__version__.startswith("5.1"):  # others number the objects differently
        assert made.read_bytes() == kept.read_bytes()
    assert (tmp_path / "notes.txt").read_bytes() == (EXAMPLES / "notes.txt").read_bytes()
    assert (tmp_path / "receipt.png").stat().st_size < 150_000
