"""Long pages: tiles that are one page, of which the best counts, and one map of all of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import Service
from pagevec.client import Client
from pagevec.grid import PageResizing, PatchGrid, cut_tiles, join_length, place_tiles
from pagevec.ingest.boundary import open_document
from pagevec.ingest.page import ReadOptions
from pagevec.search.index import Index
from pagevec.search.maxsim import maxsim
from pagevec.search.similarity_maps import token_maps
from pagevec.types import Page, PageKey
from vectors import unit_vectors

RESIZING = PageResizing(cell=28, min_pixels=4 * 784, max_pixels=768 * 784, first=4, max_ratio=200)


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        ((1240, 1754), 1),  # A4 at 150 dpi
        ((4000, 2), 1),  # long, but all of it is seen
        ((900, 3600), 1),
        ((800, 3300), 3),
        ((3300, 800), 3),
        ((800, 30000), 30),
        ((500, 65500), 32),
    ],
)
def test_which_pages_are_cut(size: tuple[int, int], tiles: int) -> None:
    """Only pages that are far longer than wide and lose most of their pixels are cut."""
    assert RESIZING.count_tiles(*size) == tiles


@pytest.mark.parametrize("size", [(7, 300), (300, 7), (80, 3001), (3001, 80)])
@pytest.mark.parametrize("count", [2, 3, 17, 32])
def test_tiles_cover_the_page(size: tuple[int, int], count: int) -> None:
    """Tiles have one size, begin and end with the page and overlap by about an eighth."""
    image = Image.linear_gradient("L").resize(size)
    tiles = cut_tiles(image, count)
    assert len({tile.size for tile in tiles}) == 1
    side, length = max(tiles[0].size), max(size)
    starts = place_tiles(length, side, count)
    assert starts[0] == 0 and starts[-1] + side == length
    steps = np.diff(starts)
    assert (steps <= side * 7 / 8 + 1).all() and (steps >= side * 7 / 8 - 2).all()
    joined = Image.new("L", size)
    for start, tile in zip(starts, tiles, strict=True):
        joined.paste(tile, (0, start) if size[1] > size[0] else (start, 0))
    assert joined.tobytes() == image.tobytes()


@pytest.mark.parametrize(("rows", "columns"), [(9, 6), (6, 9)])
def test_the_map_of_a_page_in_tiles(rows: int, columns: int) -> None:
    """The map covers the page; each cell has the highest cosine of the tiles that show it."""
    count, grid = 4, PatchGrid(rows, columns, 2)
    vectors = unit_vectors(count * (2 + rows * columns + 3), seed=1)
    page = Page(PageKey("a", 1), vectors, {"tiles": count}, grid=grid)
    query = unit_vectors(3, seed=2)
    maps = token_maps(query, page)
    long = join_length(max(rows, columns), count)
    assert maps.shape == ((3, long, columns) if rows > columns else (3, rows, long))
    alone = [token_maps(query, Page(PageKey("a", 1), tile, grid=grid)) for tile in page.tiles]
    starts = place_tiles(long, 9, count)
    for place in range(long):
        shown = [
            tile[:, place - start] if rows > columns else tile[:, :, place - start]
            for start, tile in zip(starts, alone, strict=True)
            if start <= place < start + 9
        ]
        line = maps[:, place] if rows > columns else maps[:, :, place]
        np.testing.assert_array_equal(line, np.max(shown, axis=0))


def test_pages_of_other_programs_are_whole() -> None:
    """Metadata of pages without a grid, such as morphik-core's, never cuts their vectors."""
    page = Page(PageKey("a", 1), unit_vectors(7, seed=0), {"tiles": 7})
    assert len(page.tiles) == 1


WORDS = ("harbour", "winter", "garden", "museum")


def long_picture() -> Image.Image:
    """A scroll of 700 x 6,400 pixels with a word here and there."""
    image, font = Image.new("L", (700, 6400), 255), ImageFont.load_default(44)
    for number, word in enumerate(WORDS):
        ImageDraw.Draw(image).text((90, 400 + 1600 * number), word, fill=0, font=font)
    return image


def test_a_long_page(service: Service, store_name: str, tmp_path: Path) -> None:
    """A long picture and a long PDF page are found by what is far down, and mapped there."""
    right = 0
    folder = tmp_path / "in"
    folder.mkdir()
    long_picture().save(folder / "scroll.png")
    long_picture().save(folder / "web.pdf", resolution=150)
    with Client(service.url, service.key) as client, Index(store_name, client) as index:
        report = index.add(folder)
        assert not report.failed and report.pages_stored == 2
        for number, word in enumerate(WORDS):
            hits = index.search(word)
            assert len(hits) == 2
            for hit in hits:
                assert hit.page == 1
                best = max(maxsim(hit._found.query.vectors, hit._found.page.tiles))
                assert hit.score == pytest.approx(float(best), abs=1e-4)
                assert (
                    hit.score
                    < maxsim(hit._found.query.vectors, [hit._found.page.vectors])[0] + 1e-4
                )
                values = hit.maps().overall.values
                rows, columns = values.shape
                assert rows / columns == pytest.approx(6400 / 700, rel=0.1)
                row = int(np.unravel_index(values.argmax(), values.shape)[0])
                shown = (row + 0.5) * 6400 / rows - (400 + 1600 * number)
                right += -60 <= shown <= 120
                assert hit.picture().height > 8 * hit.picture().width
    assert right >= 7  # of 8; the small model confuses some words


def test_a_warning(tmp_path: Path) -> None:
    """A long page has a warning where the model's way of resizing, and so tiles, is not known."""
    Image.new("L", (500, 20000), 255).save(tmp_path / "long.png")
    with open_document(tmp_path / "long.png", ReadOptions(RESIZING)) as pages:
        assert pages.make(1).warnings == ()
    with open_document(tmp_path / "long.png") as pages:
        [warning] = pages.make(1).warnings
        assert "500 x 20000 pixels, too long" in warning
