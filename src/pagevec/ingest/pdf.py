"""PDF -> pages, drawn as a viewer shows them: filled forms and annotations included.

The scale of a page follows from its size and from what the model can see, before anything is
allocated: 150 dpi, which is what morphik-core draws at, unless the page is so large that the model
would see less of it, or its print so small that it would not be legible.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pagevec.errors import DocumentError
from pagevec.extras import how_to_install
from pagevec.ingest.page import Pages, ReadOptions, SourcePage, page_from_image

if TYPE_CHECKING:
    from PIL import Image

DPI = 150
_POINTS_PER_INCH = 72
# Drawn pixels for each pixel that the model sees.
_OVERSAMPLING = 4
# A side of fewer pixels is drawn larger: the model would blow up its blur.
_SHORTEST_SIDE = 28
# Height in drawn pixels below which print is drawn larger, where the model's pixels allow that.
_SMALLEST_PRINT = 12
# Drawn pixels of a page in tiles, which has more than others.
_MOST_PIXELS = 24_000_000
# Letters of a page that are looked at.
_SAMPLE = 200
# Levels of grey between paper and print, at least.
_CONTRAST = 32
_NO_FONTS = (
    "most of the page's text does not show: install the fonts that it relies on "
    "(Debian: fonts-noto-cjk, fonts-noto-core)"
)


@contextmanager
def open_pdf(document: Path, options: ReadOptions) -> Iterator[Pages]:
    """Open a PDF. Pages are drawn one at a time: memory does not grow with their number.

    Raises:
        DocumentError: it is damaged, has no pages or needs a password, or pypdfium2 is missing.
    """
    try:
        import pypdfium2
    except ImportError:
        raise DocumentError(f"PDF needs {how_to_install('pdf')}") from None
    pdf = _open(pypdfium2, document, options.passwords)
    with suppress(pypdfium2.PdfiumError):
        pdf.init_forms()
    try:
        if len(pdf) == 0:
            raise DocumentError("the PDF has no pages")
        yield Pages(len(pdf), lambda number: _make_page(pdf, number, options))
    finally:
        pdf.close()


def _open(pypdfium2: Any, document: Path, passwords: Sequence[str]) -> Any:
    for password in (None, *passwords):
        try:
            return pypdfium2.PdfDocument(document, password=password)
        except pypdfium2.PdfiumError as error:
            reason = str(error)
            if "password" not in reason.lower():
                break
    if "password" in reason.lower():
        raise DocumentError(
            "the PDF needs a password, and none that was given fits: save it without one, or "
            "give it (--password)"
        )
    if "Success" in reason:
        raise DocumentError("the PDF has no pages")
    raise DocumentError(f"not a PDF that can be opened: {reason}")


def _make_page(pdf: Any, number: int, options: ReadOptions) -> SourcePage:
    page = _load(pdf, number)
    try:
        bitmap = page.render(scale=_scale(page, options))
        image = bitmap.to_pil().convert("RGB")
        warnings = () if _shows_its_text(page, bitmap, image) else (_NO_FONTS,)
    finally:
        page.close()
    return page_from_image(number, image, options, _text(pdf, number) or None, warnings)


def _load(pdf: Any, number: int) -> Any:
    import pypdfium2

    try:
        page = pdf[number - 1]
    except pypdfium2.PdfiumError:
        raise DocumentError(
            "the page is missing or damaged in the PDF: mend the file, or save it anew"
        ) from None
    if min(page.get_size()) > 0:
        return page
    # A crop box outside of the media box: ISO 32000-1, 14.11.2.1, leaves nothing of the page.
    page.set_cropbox(*page.get_mediabox())
    page.close()
    return pdf[number - 1]


def _scale(page: Any, options: ReadOptions) -> float:
    """Return pixels for each point of a page."""
    width, height = map(float, page.get_size())
    usual = DPI / _POINTS_PER_INCH
    visible, most_pixels = options.visible_pixels, _OVERSAMPLING * options.visible_pixels
    if options.resizing is not None:
        usual_size = math.ceil(width * usual), math.ceil(height * usual)
        tiles = options.resizing.count_tiles(*usual_size)
        most_pixels = min(_MOST_PIXELS, most_pixels * tiles)
    most = math.sqrt(most_pixels / (width * height))
    print_height = _median_print(page)
    legible = _SMALLEST_PRINT / print_height if print_height else usual
    least = _SHORTEST_SIDE / min(width, height)
    enough = math.sqrt(visible / (width * height))
    return min(most, max(usual, min(legible, enough), min(least, enough)))


def _median_print(page: Any) -> float:
    """Return the median height of the page's letters in points; 0 without letters."""
    boxes = _sample_letters(page, loose=False)
    heights = sorted(top - bottom for _, bottom, _, top in boxes if top > bottom)
    return heights[len(heights) // 2] if heights else 0.0


def _sample_letters(page: Any, *, loose: bool) -> Iterator[tuple[float, float, float, float]]:
    """Yield the boxes (left, bottom, right, top), in points, of some letters and digits."""
    text = page.get_textpage()
    count = text.count_chars()
    for place in range(0, count, max(1, count // _SAMPLE)):
        if text.get_text_range(place, 1).isalnum():
            yield text.get_charbox(place, loose=loose)


def _text(pdf: Any, number: int) -> str:
    """Return the text layer, with what is typed into form fields and written on notes."""
    from pypdfium2 import raw

    page = pdf[number - 1]
    try:
        if raw.FPDFPage_GetAnnotCount(page) > 0:
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
            page.close()
            page = pdf[number - 1]
        return str(page.get_textpage().get_text_bounded().strip())
    finally:
        page.close()


def _shows_its_text(page: Any, bitmap: Any, image: "Image.Image") -> bool:
    """Whether most letters of the text layer left ink where they stand; those outside do not count.

    Without its font a letter is drawn as nothing.
    """
    place = bitmap.get_posconv(page)
    grey = image.convert("L")
    shown = seen = 0
    for left, bottom, right, top in _sample_letters(page, loose=True):
        (x, y), (far_x, far_y) = place.to_bitmap(left, bottom), place.to_bitmap(right, top)
        box = min(x, far_x) - 1, min(y, far_y) - 1, max(x, far_x) + 1, max(y, far_y) + 1
        if box[2] <= 0 or box[3] <= 0 or box[0] >= image.width or box[1] >= image.height:
            continue
        letter = grey.crop((*map(max, box[:2], (0, 0)), *map(min, box[2:], image.size)))
        seen += 1
        shown += int(np.ptp(np.asarray(letter))) >= _CONTRAST
    return 2 * shown >= seen
