"""PDF pages are drawn as a viewer shows them, and one bad page costs that page alone."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas
from workers import small_pdf

from conftest import Service
from image_files import encode
from pagevec.client import Client
from pagevec.errors import DocumentError
from pagevec.grid import PageResizing
from pagevec.ingest.boundary import open_document
from pagevec.ingest.page import ReadOptions, SourcePage
from pagevec.search.index import Index
from pagevec.stores import open_store
from pagevec.types import PageKey
from pdf_files import (
    annotated,
    form,
    one_page,
    pages_pdf,
    unembedded_cjk,
    with_image,
    with_nul,
    words,
)

RESIZING = PageResizing(cell=28, min_pixels=4 * 784, max_pixels=768 * 784, first=4, max_ratio=200)
VISIBLE = RESIZING.max_pixels


def make(content: bytes, folder: Path, number: int = 1, **options: object) -> SourcePage:
    """Read one page of a PDF, unresized."""
    (folder / "a.pdf").write_bytes(content)
    with open_document(folder / "a.pdf", ReadOptions(**options)) as pages:  # type: ignore[arg-type]
        return pages.make(number)


def picture(page: SourcePage) -> Image.Image:
    assert isinstance(page.content, bytes)
    return Image.open(BytesIO(page.content)).convert("L")


def ink(page: SourcePage, left: float, bottom: float, right: float, top: float) -> float:
    """The share of dark pixels in a box, in points of a page of 612 x 792."""
    image = picture(page)
    across, down = image.width / 612, image.height / 792
    box = (left * across, (792 - top) * down, right * across, (792 - bottom) * down)
    return float((np.asarray(image.crop(tuple(map(round, box)))) < 128).mean())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("appearances", "need_appearances"), [(True, False), (False, True), (False, False)]
)
def test_filled_forms(tmp_path: Path, appearances: bool, need_appearances: bool) -> None:
    """What is typed and ticked is in the picture and, if a text, in the text layer."""
    page = make(form(appearances=appearances, need_appearances=need_appearances), tmp_path)
    assert ink(page, 200, 600, 500, 640) > 0.02
    assert ink(page, 200, 500, 240, 540) > 0.05
    assert page.text is not None
    assert "ALBATROSS" in page.text and "Name of the vessel" in page.text


def test_annotations(tmp_path: Path) -> None:
    """Notes and highlights are in the picture, the words of notes in the text layer."""
    page = make(annotated(), tmp_path)
    assert ink(page, 72, 590, 372, 630) > 0.02
    assert isinstance(page.content, bytes)
    colours = np.asarray(Image.open(BytesIO(page.content)).convert("RGB"), int)
    assert ((colours[..., 0] > 200) & (colours[..., 2] < 100)).sum() > 1000
    assert page.text is not None and "METALS" in page.text and "PLUTONIUM" in page.text


@pytest.mark.parametrize(
    ("crop", "shape"),
    [
        (b"[50 650 400 750]", 350 / 100),
        (b"[400 750 50 650]", 350 / 100),  # corners the other way round
        (b"[-500 650 400 5000]", 400 / 142),  # partly outside: what is inside
        (b"[1000 1000 1200 1200]", 612 / 792),  # outside: the whole page
        (b"[50 50 50 50]", 612 / 792),
    ],
)
def test_crop_boxes(tmp_path: Path, crop: bytes, shape: float) -> None:
    """The crop box counts as far as it is on the page."""
    page = make(one_page(words("INSIDE"), page=b"/CropBox" + crop), tmp_path)
    image = picture(page)
    assert image.width / image.height == pytest.approx(shape, rel=0.01)
    assert (np.asarray(image) < 128).any()
    assert page.text == "INSIDE"


@pytest.mark.parametrize("side", [14_400, 1_000_000, 1_000_000_000])
def test_huge_pages(tmp_path: Path, side: int) -> None:
    """A page is drawn with no more pixels than the model can use, however large it says it is."""
    content = words("POSTER", side / 10, side / 2, side / 8)
    page = make(one_page(content, box=(0, 0, side, side)), tmp_path)
    image = picture(page)
    assert VISIBLE <= image.width * image.height <= 4.1 * (1 << 20)
    if side < 1_000_000_000:  # PDFium's numbers end there
        assert (np.asarray(image) < 128).mean() > 0.001


def test_small_units(tmp_path: Path) -> None:
    """Small print on a small page, which a user unit of 10 enlarges, is drawn legibly."""
    page = make(
        one_page(words("tiny", 7, 70, 2), box=(0, 0, 61, 79), page=b"/UserUnit 10"), tmp_path
    )
    image = picture(page)
    assert image.height > 600
    rows = np.flatnonzero((np.asarray(image) < 128).any(axis=1))
    assert rows[-1] - rows[0] >= 8


def test_a_strip(tmp_path: Path) -> None:
    """A strip of 3 x 900 points is as wide as a cell of the model at least."""
    page = make(one_page(words("S", 0.5, 450, 2), box=(0, 0, 3, 900)), tmp_path)
    image = picture(page)
    assert image.width >= 28
    assert (np.asarray(image) < 128).any()


@pytest.mark.parametrize(
    ("turn", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (270, (0, 1)), (-90, (0, 1))]
)
def test_rotation(tmp_path: Path, turn: int, corner: tuple[int, int]) -> None:
    """A page is turned as it says: what is in its upper left lies where a viewer shows it."""
    page = make(one_page(words("A"), page=b"/Rotate %d" % turn), tmp_path)
    image = picture(page)
    assert (image.width > image.height) == (turn % 180 != 0)
    y, x = (places.mean() for places in np.nonzero(np.asarray(image) < 128))
    assert (x > image.width / 2, y > image.height / 2) == (corner[0] == 1, corner[1] == 1)


def test_a_long_web_page(tmp_path: Path) -> None:
    """A page 14,400 points long is drawn legibly, within limits, and cut into tiles."""
    content = b"".join(words(f"line {y}", 72, y, 12) for y in range(100, 14_400, 300))
    page = make(one_page(content, box=(0, 0, 612, 14_400)), tmp_path, resizing=RESIZING)
    assert len(page.tiles) == 18
    assert page.size is not None and page.size[0] >= 900
    assert page.warnings == ()
    first = Image.open(BytesIO(page.tiles[0])).convert("L")
    rows = (np.asarray(first) < 128).any(axis=1)
    heights = np.diff(np.flatnonzero(np.diff(rows.astype(int))))[::2]
    assert (heights >= 6).all()


def encrypted(folder: Path, user: str) -> bytes:
    canvas = Canvas(
        str(folder / "e.pdf"), encrypt=StandardEncryption(user, "owner", canCopy=0, strength=128)
    )
    canvas.drawString(100, 700, "SUBMARINE")
    canvas.save()
    return (folder / "e.pdf").read_bytes()


def test_passwords(tmp_path: Path) -> None:
    """An encrypted PDF opens without a password, or with one of those given; else it says so."""
    assert make(encrypted(tmp_path, ""), tmp_path).text == "SUBMARINE"
    locked = encrypted(tmp_path, "harbour")
    assert make(locked, tmp_path, passwords=("wrong", "harbour")).text == "SUBMARINE"
    for passwords in ((), ("wrong", "")):
        with pytest.raises(DocumentError, match=r"a\.pdf: .*needs a password.*--password"):
            make(locked, tmp_path, passwords=passwords)


@pytest.mark.parametrize("bad", [b"", b"null", b"[]", b"(text)"])
def test_a_page_that_is_not_there(tmp_path: Path, bad: bytes) -> None:
    """A page object that is missing or no page costs that page; it and the file are named."""
    (tmp_path / "a.pdf").write_bytes(pages_pdf(list("VWXYZ"), bad={3: bad}))
    with open_document(tmp_path / "a.pdf") as pages:
        assert pages.count == 5
        assert [pages.make(number).text for number in (1, 2, 4, 5)] == list("VWYZ")
        with pytest.raises(DocumentError, match=r"page 3 of .*a\.pdf: .*missing or damaged"):
            pages.make(3)


@pytest.mark.parametrize("count", [3, 1, -1, 100_000])
def test_a_lying_count(tmp_path: Path, count: int) -> None:
    """Pages that are there are read, whatever number the page tree says."""
    (tmp_path / "a.pdf").write_bytes(pages_pdf(["ONE"], count=count, bad={}))
    with open_document(tmp_path / "a.pdf") as pages:
        assert pages.make(1).text == "ONE"
        if pages.count > 1:
            with pytest.raises(DocumentError, match="page 2 of"):
                pages.make(2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><p>404</p>", "not a PDF that can be opened"),
        (pages_pdf([], bad={}), "no pages|cannot be opened|can be opened"),
    ],
)
def test_no_pdf(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that is no PDF is refused by name, with a reason."""
    with pytest.raises(DocumentError, match=rf"a\.pdf: .*({reason})"):
        make(content, tmp_path)


def test_fonts_that_are_missing(tmp_path: Path) -> None:
    """Text in a font that is neither embedded nor installed gives a warning, not silence."""
    page = make(unembedded_cjk(), tmp_path)
    assert page.text == "東京都"
    listed = shutil.which("fc-list") and subprocess.run(
        ["fc-list", ":lang=ja"], capture_output=True
    )
    if listed and listed.stdout:
        assert page.warnings == () and ink(page, 72, 590, 200, 650) > 0.02
    else:
        [warning] = page.warnings
        assert "fonts-noto-cjk" in warning


def test_blank_pages_have_no_warning(tmp_path: Path) -> None:
    """An empty page, and a page of white on black or faint print, is as it should be."""
    assert make(one_page(b""), tmp_path).warnings == ()
    black = b"0 g 0 0 612 792 re f 1 g " + words("NIGHT")
    assert make(one_page(black), tmp_path).warnings == ()
    assert make(one_page(b"0.7 g " + words("x", size=8)), tmp_path).warnings == ()


def test_pictures_in_pdfs(tmp_path: Path) -> None:
    """JPEG 2000 and CMYK JPEG images are drawn with their colours."""
    red = Image.new("RGB", (64, 64), (200, 40, 40))
    size = b"/Width 64/Height 64/BitsPerComponent 8"
    inks = Image.new("CMYK", (64, 64), (0, 204, 204, 51))
    for content, entries in (
        (encode(red, "JPEG2000"), size + b"/Filter/JPXDecode"),
        (
            encode(inks, "JPEG"),
            size + b"/Filter/DCTDecode/ColorSpace/DeviceCMYK/Decode[1 0 1 0 1 0 1 0]",
        ),
    ):
        page = make(with_image(content, entries), tmp_path)
        assert isinstance(page.content, bytes)
        image = Image.open(BytesIO(page.content)).convert("RGB")
        colour = image.getpixel((image.width // 2, image.height // 2))
        assert isinstance(colour, tuple)
        assert np.abs(np.subtract(colour, (200, 40, 40))).max() < 50


def test_nul_in_the_text_layer(service: Service, store_name: str, tmp_path: Path) -> None:
    """Letters that no text can have are kept from both stores; the page is stored."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pdf").write_bytes(with_nul())
    with Client(service.url, service.key) as client, Index(store_name, client) as index:
        assert index.add(tmp_path / "in").pages_stored == 1
    with open_store(store_name) as store:
        [page] = store.fetch([PageKey("in/a.pdf", 1)])
    assert page.text is not None and "G" in page.text
    page.text.encode()


def test_memory_of_many_pages(tmp_path: Path) -> None:
    """The reader of a PDF of 1,000 pages takes no more memory at its end than at its start."""
    with open_document(small_pdf(tmp_path / "long.pdf", 1000)) as pages:
        assert pages.count == 1000
        [reader] = [
            child
            for child in psutil.Process().children()
            if any("pagevec.ingest.reader" in part for part in child.cmdline())
        ][-1:]
        for number in range(1, 101):
            pages.make(number)
        early = reader.memory_info().rss
        for number in range(101, 1001):
            pages.make(number)
        assert reader.memory_info().rss - early < 30 << 20
