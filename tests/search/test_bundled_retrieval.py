"""The whole way finds pages: PDF, rendering, resizing, wire, model, store, search.

Vectors without meaning would pass every other test; this one fails when retrieval gets worse.
"""

import random
from pathlib import Path

import pytest
import reportlab
from benchmarks.retrieval.words import draw_name
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from conftest import Service
from pagevec.client import Client
from pagevec.ingest.boundary import open_document
from pagevec.search.retriever import Retriever
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import Page, PageKey

PAGES, LINES = 50, 7
WIDTH, HEIGHT, SIZE = 320, 200, 12  # points; at 150 dpi the print is as large as 16 points on A4
FONTS = ("Vera", "VeraBd", "VeraIt")
BAR = 0.90


@pytest.fixture(scope="module")
def words() -> list[list[str]]:
    """Invented words, for each page others."""
    rng = random.Random(50)  # noqa: S311 - nothing secret
    return [[draw_name(rng) for _ in range(3 * LINES)] for _ in range(PAGES)]


@pytest.fixture(scope="module")
def pdf(words: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(reportlab.__file__).parent / "fonts"
    for font in FONTS:
        pdfmetrics.registerFont(TTFont(font, str(folder / f"{font}.ttf")))
    file = tmp_path_factory.mktemp("pages") / "pages.pdf"
    canvas = Canvas(str(file), pagesize=(WIDTH, HEIGHT))
    for number, page in enumerate(words):
        canvas.setFont(FONTS[number % len(FONTS)], SIZE)
        for line in range(LINES):
            canvas.drawString(20, HEIGHT - 30 - 22 * line, " ".join(page[3 * line : 3 * line + 3]))
        canvas.showPage()
    canvas.save()
    return file


def test_pages_are_found(
    words: list[list[str]], pdf: Path, service: Service, tmp_path: Path
) -> None:
    """Two words of a page bring it up first, for nine pages of ten at least."""
    store = SqliteStore(tmp_path / "store")
    with Client(service.url, service.key) as client:
        with open_document(pdf) as document:
            images = [document.make(number).content for number in range(1, PAGES + 1)]
        vectors = client.embed_images(images)
        store.add([Page(PageKey("pages", n), page) for n, page in enumerate(vectors, start=1)])
        retriever = Retriever(client, store)
        found = [
            retriever.search(f"{page[4]} {page[13]}".lower(), k=1)[0].key.number for page in words
        ]
    store.close()
    right = sum(number == place for place, number in enumerate(found, start=1))
    assert right / PAGES >= BAR
