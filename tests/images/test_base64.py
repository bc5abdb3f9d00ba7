"""Base64 in all its spellings, and pages too narrow for a model."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from images.pages import (
    FILES,
    HARMLESS_WARNINGS,
    PAGE,
    WHITE,
)
from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    decode_base64,
    pad_to_ratio,
    read_base64_image,
)

pytestmark = HARMLESS_WARNINGS


ENCODED = base64.b64encode(FILES["png"]).decode()
URL_SAFE = ENCODED.replace("+", "-").replace("/", "_")


@pytest.mark.parametrize(
    "text",
    [
        ENCODED,
        URL_SAFE,
        ENCODED.rstrip("="),
        URL_SAFE.rstrip("="),
        "\n  " + ENCODED + " \r\n",
        base64.encodebytes(FILES["png"]).decode(),
        base64.encodebytes(FILES["png"]).decode().replace("\n", "\r\n\t "),
    ],
    ids=["standard", "url-safe", "no-padding", "url-safe-no-padding", "ends", "lines", "crlf"],
)
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "data:image/png;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:;base64,",
        "data:image/png;name=a.png;charset=utf-8;base64, ",
        " data:image/jpeg; base64,",
    ],
)
def test_base64_variants(prefix: str, text: str) -> None:
    """Both alphabets, with or without padding, white space or a data URI, are the same file."""
    assert URL_SAFE != ENCODED
    assert decode_base64(prefix + text) == FILES["png"]


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 300))
def test_base64_of_any_bytes(data: bytes, url_safe: bool, at: int) -> None:
    """Any bytes come back, and one wrong character anywhere is refused."""
    encoder = base64.urlsafe_b64encode if url_safe else base64.b64encode
    text = encoder(data).decode()
    assert decode_base64(text) == data
    for wrong in "é", "\0", "!", "\u2003", "\ud800":
        with pytest.raises(InvalidImage):
            decode_base64(text[:at] + wrong + text[at:])


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=A", "====", "AAAA=", "data:,AAAA"])
def test_text_that_is_not_base64(text: str) -> None:
    """Lengths and padding that base64 cannot have, and data URIs of another encoding."""
    with pytest.raises(InvalidImage, match="base64"):
        decode_base64(text)


@pytest.mark.parametrize("text", ["https://example.org/a.png", "HTTP://x", " file:///etc/passwd"])
def test_addresses_are_never_fetched(text: str) -> None:
    """An address is refused, and the message says why."""
    with pytest.raises(InvalidImage, match="addresses are never fetched"):
        read_base64_image(text)


def test_empty_input() -> None:
    """Nothing at all is not an image."""
    for text in ("", "  ", "data:image/png;base64,"):
        with pytest.raises(InvalidImage, match="empty"):
            read_base64_image(text)


def test_bytes_are_limited_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of the text tells; white space in it does not count."""
    data = bytes(100)
    spaced = "\n".join(base64.b64encode(data).decode())
    assert decode_base64(spaced, ImageLimits(max_bytes=100)) == data

    monkeypatch.setattr("pybase64.b64decode", lambda *_args, **_options: pytest.fail("decoded"))
    for text in (spaced, base64.b64encode(data).decode()):
        with pytest.raises(ImageTooLarge):
            decode_base64(text, ImageLimits(max_bytes=97))


def test_read_base64_image() -> None:
    """Text in, header out, pixels on demand; the file is not part of what is printed."""
    image = read_base64_image("data:image/png;base64," + ENCODED, DEFAULT_LIMITS)
    assert (image.format, image.width, image.height) == ("PNG", 96, 128)
    assert image.data == FILES["png"]
    assert len(repr(image)) < 100
    assert (np.asarray(image.decode()) == np.asarray(PAGE)).all()


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((256, 1), (256, 2)),
        ((1, 256), (2, 256)),
        ((200, 1), (200, 1)),
        ((201, 1), (201, 2)),
        ((1, 1), (1, 1)),
        ((1000, 3), (1000, 5)),
    ],
)
def test_pad_to_ratio(size: tuple[int, int], padded: tuple[int, int]) -> None:
    """The least white that brings the sides within the ratio, right or below; else nothing."""
    image = Image.new("RGB", size, "red")
    result = pad_to_ratio(image, 200)
    assert result.size == padded
    assert (result is image) == (size == padded)
    assert result.getpixel((0, 0)) == (255, 0, 0)
    assert size == padded or result.getpixel((padded[0] - 1, padded[1] - 1)) == WHITE
