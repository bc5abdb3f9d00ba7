"""Resizing before sending: what it gains, what it costs, and what it leaves unchanged."""

import subprocess
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.faulty import Faulty, same
from client.pages import cosines, drawn_pages, factor, png_of, ranking, report_pages
from conftest import Service, make_settings, png, running
from pagevec.client import Client
from pagevec.client.images import image_file, is_plain_and_whole
from pagevec.engine.backends import load
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import InvalidImage
from pagevec.grid import PageResizing
from pagevec.images import read_image

GRID = PageResizing(cell=28, min_pixels=4 * 784, max_pixels=768 * 784, first=4, max_ratio=200)
SMALL = PageResizing(cell=28, min_pixels=4 * 784, max_pixels=20 * 784, first=4, max_ratio=200)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.key) as made:
        yield made


@pytest.fixture(scope="module")
def coarse() -> Iterator[Client]:
    """A client of a service that cuts pages into 128 cells, which is quick."""
    settings = make_settings(max_visual_tokens=128)
    embedder = LocalEmbedder.of(settings, lambda: load(settings))
    embedder.wait_until_ready()
    with running(embedder, settings) as started, Client(started.url, started.key) as made:
        yield made
    embedder.close()


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Pixels of which fewer are always fewer bytes."""
    return np.random.default_rng(0).integers(0, 255, (height, width, channels), np.uint8)


def pixels(data: bytes) -> np.ndarray:
    """The pixels as the service reads them: (h, w, 3), signed for differences."""
    return np.asarray(read_image(data).decode()).astype(int)


def test_bytes_of_a4() -> None:
    """An A4 page at 150 dpi takes at least 2 times fewer bytes than its PNG."""
    for page in report_pages():
        assert factor(page, GRID) >= 2


def test_vectors_stay(client: Client) -> None:
    """Each vector of a resized page is nearly that of the unresized page's."""
    pages = report_pages()[:3]
    whole, resized = (client.embed_images(pages, resize=on) for on in (False, True))
    for pair in zip(whole, resized, strict=True):
        assert cosines(*pair).min() >= 0.9999  # promised are 0.995


def test_ranking_stays(coarse: Client) -> None:
    """Twenty pages rank in the same order for each query, resized or not.

    In float32: an untrained model's scores are so close that float16 alone swaps some.
    """
    pages = drawn_pages(20)
    whole, resized = (
        coarse.embed_images(pages, resize=on, dtype="float32") for on in (False, True)
    )
    for query in coarse.embed_texts(["night route", "fares in 2024", "a table of numbers"]):
        assert ranking(query, whole) == ranking(query, resized)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_the_service_resizes_no_more(width: int, height: int) -> None:
    """What is sent has the size that the model works at, or is the file itself."""
    page = png(width, height)
    sent = image_file(page, SMALL)
    seen = read_image(sent)
    expected = SMALL.resized(width, height)
    if sent is not page:
        assert (seen.width, seen.height) == expected == SMALL.resized(*expected)


def test_small_pages_go_as_they_are() -> None:
    """A page that the model would not shrink, or any page without resizing, keeps its bytes."""
    page = png(300, 200)
    assert image_file(page, GRID) is page
    large = png(1500, 1500)
    assert image_file(large, None) is large


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats_go_as_they_are(format_: str) -> None:
    """Only PNG is rewritten, since Pillow does not notice damage in other formats."""
    file = BytesIO()
    Image.open(BytesIO(png(1500, 1500))).convert("RGB").save(file, format_)
    assert image_file(file.getvalue(), GRID) == file.getvalue()


def test_like_the_models_resizing() -> None:
    """The pixels are those of a bicubic reduction with antialiasing, without loss."""
    page = Image.open(BytesIO(report_pages()[0]))
    expected = page.resize(GRID.resized(*page.size), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels(image_file(page, GRID)), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """EXIF orientation is applied before resizing, as the service would after it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    page = png_of(Image.fromarray(noise(900, 400)), exif=exif)
    sent = image_file(page, SMALL)
    upright = read_image(page).decode()
    expected = upright.resize(SMALL.resized(*upright.size), Image.Resampling.BICUBIC)
    assert len(sent) < len(page)
    np.testing.assert_allclose(pixels(sent), np.asarray(expected), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "RGB"])
def test_modes(mode: str) -> None:
    """Every mode is laid over white and resized to what the service would have seen."""
    page = png_of(Image.fromarray(noise(900, 400, 4)).convert(mode))
    upright = read_image(page).decode()
    expected = upright.resize(SMALL.resized(*upright.size), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(pixels(image_file(page, SMALL)), np.asarray(expected), atol=1)


def test_long_pages() -> None:
    """A page longer than the ratio is padded with white, as the service does."""
    page = Image.new("L", (4, 4000), 0)
    narrow = PageResizing(cell=28, min_pixels=784, max_pixels=20 * 784, first=0, max_ratio=20)
    sent = pixels(image_file(page, narrow))
    assert sent.shape[:2] == narrow.resized(4, 4000)[::-1]
    assert sent[:, -1].min() > sent[:, 0].max()


def damaged(page: bytes) -> dict[str, bytes]:
    """PNG files with one kind of damage each."""
    flipped = bytearray(page)
    flipped[len(page) // 2] ^= 255
    rows = zlib.decompress(page[41:-16])
    short = zlib.compress(rows[: len(rows) // 2])
    chunk = len(short).to_bytes(4, "big") + b"IDAT" + short
    sums = zlib.crc32(chunk[4:]).to_bytes(4, "big")
    return {
        "flipped": bytes(flipped),
        "cut": page[:-200],
        "cut in the last checksum": page[:-2],
        "last checksum wrong": page[:-1] + b"?",
        "rows missing": page[:33] + chunk + sums + page[-12:],
        "header only": page[:30],
    }


def one_chunk(width: int, height: int) -> bytes:
    """A PNG file with all pixels in a single IDAT chunk."""
    page = png_of(Image.new("L", (width, height), 77))
    assert page.count(b"IDAT") == 1
    return page


@pytest.mark.parametrize("kind", damaged(one_chunk(900, 400)))
def test_damaged_pages_are_not_mended(kind: str) -> None:
    """A damaged PNG file is sent as it is, and the service refuses it."""
    assert is_plain_and_whole(one_chunk(900, 400))
    page = damaged(one_chunk(900, 400))[kind]
    assert image_file(page, SMALL) == page
    with pytest.raises(InvalidImage):
        read_image(page).decode()


def test_what_pillow_reads_wrongly_goes_as_it_is() -> None:
    """16 bits for a sample, and a transparent colour, are left to the service."""
    deep = png_of(Image.fromarray(np.full((900, 900), 40000, np.uint16)))
    keyed = png_of(Image.new("L", (900, 900), 9), transparency=9)
    for page in (deep, keyed):
        assert image_file(page, SMALL) == page


def test_without_pillow(tmp_path: Path) -> None:
    """Without Pillow, files are sent as they are, and an array is refused with the reason."""
    (tmp_path / "page.png").write_bytes(png(900, 400))
    code = f"""
import sys
sys.modules["PIL"] = None  # as if it were not installed
import numpy as np
from pagevec.client.images import image_file
from pagevec.errors import InvalidImage
from pagevec.grid import PageResizing
assert image_file("page.png", {SMALL}) == open("page.png", "rb").read()
try:
    image_file(np.zeros((9, 9), np.uint8), None)
except InvalidImage as error:
    assert "Pillow" in error.message
else:
    sys.exit(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4)), np.zeros((4, 4, 7), np.uint8), np.zeros((0, 4), np.uint8), 7]
)
def test_wrong_arrays(wrong: Any) -> None:
    """An array that is not an image is refused."""
    with pytest.raises(InvalidImage):
        image_file(wrong, GRID)


def test_resize_off(either_client: Any, faulty: Faulty) -> None:
    """`resize=False` sends the files themselves; with resizing the same pages are smaller."""
    faulty.info = {
        "resizing": {"cell": 28, "min_pixels": 784, "max_pixels": 7840, "first": 0, "max_ratio": 9}
    }
    faulty.always = same
    pages = [png_of(Image.fromarray(noise(300, 300))) for _ in range(2)]
    sizes = []
    for resize in (False, True):
        faulty.asked.clear()
        either_client(faulty.url).embed_images(pages, resize=resize)
        sizes.append(sum(one.size for one in faulty.posts))
    assert sizes[0] > sum(map(len, pages)) > sizes[1]
