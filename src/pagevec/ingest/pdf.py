"""PDF -> pages, at the resolution that morphik-core renders at."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.page import Pages, SourcePage, page_from_image

DPI = 150
_POINTS_PER_INCH = 72

# PDFium is not thread-safe, not even between documents.
_PDFIUM = threading.Lock()


@contextmanager
def open_pdf(document: Path) -> Iterator[Pages]:
    """Open a PDF. Pages are rendered one at a time: memory does not grow with their number.

    Raises:
        InvalidRequest: it is damaged or needs a password, or pypdfium2 is not installed.
    """
    try:
        import pypdfium2
    except ImportError:
        raise InvalidRequest(f"{document}: PDF needs `pip install 'pagevec[pdf]'`") from None
    try:
        with _PDFIUM:
            pdf = pypdfium2.PdfDocument(document)
    except pypdfium2.PdfiumError as error:
        raise InvalidRequest(f"{document} cannot be opened: {error}") from None

    def make(number: int) -> SourcePage:
        with _PDFIUM:
            page = pdf[number - 1]
            try:
                image = page.render(scale=DPI / _POINTS_PER_INCH).to_pil()
                text = page.get_textpage().get_text_bounded().strip()
            except pypdfium2.PdfiumError as error:
                raise InvalidRequest(f"page {number} of {document}: {error}") from None
            finally:
                page.close()
        return page_from_image(number, image, text or None)

    try:
        yield Pages(len(pdf), make)
    finally:
        with _PDFIUM:
            pdf.close()
