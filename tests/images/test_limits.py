"""Pictures that are too large are refused by their headers, before a pixel is decoded."""

import struct
import zlib

import pytest
from PIL import ImageFile

from image_files import gif_frame, png, png_chunk, png_of, tiff
from images.pages import FILES, HARMLESS_WARNINGS, pixels, samples
from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.images import (
    ImageLimits,
    read_image,
)

pytestmark = HARMLESS_WARNINGS


@pytest.mark.parametrize("name", FILES)
def test_limits_are_checked_before_pixels_are_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, pixels and sides are checked from the header, just at the limit."""

    def fail(_self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    data = FILES[name]
    read_image(data, ImageLimits(len(data), 96 * 128, 128))
    for limits in (
        ImageLimits(len(data) - 1, 96 * 128, 128),
        ImageLimits(len(data), 96 * 128 - 1, 128),
        ImageLimits(len(data), 96 * 128, 127),
    ):
        with pytest.raises(ImageTooLarge):
            read_image(data, limits)


def test_messages_of_limits() -> None:
    """Each says what was found, what is allowed and what to do."""
    data = FILES["png"]
    for limits, said in (
        (ImageLimits(max_bytes=100), "more than the 100 allowed"),
        (ImageLimits(max_pixels=100), "96 x 128 pixels, but at most 100 pixels"),
        (ImageLimits(max_side=100), "96 x 128 pixels, but no side may be longer than 100"),
    ):
        with pytest.raises(ImageTooLarge, match=said):
            read_image(data, limits)


@pytest.mark.parametrize(
    "bomb",
    [
        png_of(struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0), png_chunk(b"IDAT", b"")),
        gif_frame(65_535, 65_535, (0, 0, 65_535, 65_535), disposal=2),
        gif_frame(1, 1, (0, 0, 65_535, 65_535), disposal=2),
        tiff(b"", 10**6, 10**6, (8,), photometric=1),
        b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + b"\0" * 8,
    ],
    ids=["png", "gif", "gif-frame", "tiff", "webp"],
)
def test_headers_of_huge_pictures(bomb: bytes) -> None:
    """A few bytes that promise a huge picture are refused at once, by size or as incomplete."""
    with pytest.raises((ImageTooLarge, InvalidImage)):
        read_image(bomb).decode()
    if not bomb.startswith(b"RIFF"):
        with pytest.raises(ImageTooLarge):
            read_image(bomb)


def test_more_pixels_than_pillow_would_open() -> None:
    """Pillow's own limit neither warns nor refuses below ours."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 1, 0, 0, 0, 0)
    file = png_of(header, png_chunk(b"IDAT", b""))
    assert read_image(file, ImageLimits(max_pixels=200_000_000)).width == 20_000


def test_text_that_unpacks_to_a_bomb() -> None:
    """Compressed text in a PNG is not unpacked, so it is no reason to refuse the picture."""
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 10_000_000))
    values = samples(1, 8)
    assert (pixels(png(values, 8, 0, text)) == values).all()
