"""Files become pages."""

import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import EXAMPLES, png
from pagevec.errors import DocumentError
from pagevec.images import read_image
from pagevec.ingest.boundary import open_document
from pagevec.ingest.names import name_unstored
from pagevec.ingest.page import SourcePage
from pagevec.ingest.sources import find_documents
from pagevec.ingest.texts import split


def read_pages(document: Path) -> list[SourcePage]:
    with open_document(document) as pages:
        return [pages.make(number) for number in range(1, pages.count + 1)]


def test_pdf_pages_have_picture_text_and_thumbnail() -> None:
    """A page of a PDF is a picture at 150 dpi with its text layer and a small JPEG."""
    pages = read_pages(EXAMPLES / "annual-report.pdf")
    assert [page.number for page in pages] == [1, 2, 3, 4, 5, 6]
    third = pages[2]
    assert third.size in ((1240, 1754), (1241, 1754))
    assert third.text is not None and "41,983" in third.text
    assert isinstance(third.content, bytes)
    assert read_image(third.content).format == "PNG" or third.content[12:16] == b"VP8L"  # lossless
    assert third.thumbnail is not None and read_image(third.thumbnail).height == 320


def test_pages_can_be_made_in_any_order() -> None:
    """A restarted ingestion asks for the missing pages only."""
    with open_document(EXAMPLES / "annual-report.pdf") as pages:
        assert pages.count == 6
        assert [pages.make(number).number for number in (5, 2)] == [5, 2]


def test_every_frame_of_a_tiff(tmp_path: Path) -> None:
    """A scan of three pages in one TIFF is three pages, each its own."""
    shades = [Image.new("L", (60, 80), shade) for shade in (10, 120, 230)]
    path = tmp_path / "scan.tiff"
    shades[0].save(path, save_all=True, append_images=shades[1:])
    seen = [read_image(bytes(page.content)).decode().getpixel((5, 5)) for page in read_pages(path)]  # type: ignore[arg-type]
    assert seen == [(10,) * 3, (120,) * 3, (230,) * 3]


def test_an_image_is_sent_without_loss(tmp_path: Path) -> None:
    """The pixels of a single image are sent as they are, where the model's size is not known."""
    path = tmp_path / "page.png"
    path.write_bytes(png(80, 60))
    [page] = read_pages(path)
    sent, file = (read_image(bytes(one)).decode() for one in (page.content, path.read_bytes()))  # type: ignore[arg-type]
    assert sent.tobytes() == file.tobytes()
    assert page.size == (80, 60)


@given(st.text(max_size=6000), st.integers(20, 400), st.integers(0, 9))
def test_pieces_cover_the_text(text: str, piece: int, overlap: int) -> None:
    """No piece is too long, and without what they share the pieces are the text again."""
    first, *others = split(text, piece, overlap)
    assert all(len(one) <= piece for one in (first, *others))
    assert first + "".join(one[overlap:] for one in others) == text


def test_folders_are_read_to_the_bottom(tmp_path: Path) -> None:
    """All documents below a folder are found, in order; hidden and other files are not."""
    for name in ("b/c/deep.txt", "a.md", "b/.git/no.txt", "b/program.exe"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("words")
    found = find_documents([tmp_path])
    names = [str(one.path.relative_to(tmp_path)) for one in found.documents]
    assert names == ["a.md", "b/c/deep.txt"]
    label = tmp_path.name
    named = [document.name for document in name_unstored(found)]
    assert named == [f"{label}/a.md", f"{label}/b/c/deep.txt"]


def test_office_files_without_libreoffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LibreOffice an Office file is an error that says what is needed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "letter.docx"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("word/document.xml", "<w:document/>")
    with pytest.raises(DocumentError, match=r"letter\.docx.*LibreOffice"), open_document(path):
        pass


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed here")
def test_office_files(tmp_path: Path) -> None:
    """With LibreOffice an Office file's pages are those of its PDF."""
    path = tmp_path / "letter.rtf"
    path.write_text(r"{\rtf1 The ferry leaves at noon.}")
    [page] = read_pages(path)
    assert page.text is not None and "noon" in page.text
