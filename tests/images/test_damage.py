"""A damaged file gives its true pixels or an error that says what is wrong, never others."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from image_files import encode, png, tiff
from images.pages import (
    BILEVEL,
    FILES,
    GREY,
    HARMLESS_WARNINGS,
    PAGE,
    TRUE_PIXELS,
    Array,
    pixels,
    samples,
)
from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.images import (
    read_image,
)

pytestmark = HARMLESS_WARNINGS


def outcome(data: bytes) -> Array | None:
    """The pixels, or None if the file is refused; anything else raised fails the test."""
    try:
        return pixels(data)
    except (InvalidImage, ImageTooLarge):
        return None


def is_true_or_refused(name: str, data: bytes) -> bool:
    shown = outcome(data)
    return shown is None or np.array_equal(shown, TRUE_PIXELS[name])


fuzz = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(random=st.data())
def test_files_cut_short(name: str, random: st.DataObject) -> None:
    """A file cut anywhere is refused, or shows exactly its picture (only trailing bytes lost)."""
    data = FILES[name]
    assert is_true_or_refused(name, data[: random.draw(st.integers(0, len(data) - 1))])


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("png")])
@fuzz
@given(random=st.data())
def test_altered_png(name: str, random: st.DataObject) -> None:
    """PNG has checksums: any flipped bit is refused."""
    data = bytearray(FILES[name])
    data[random.draw(st.integers(0, len(data) - 1))] ^= 1 << random.draw(st.integers(0, 7))
    assert outcome(bytes(data)) is None


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(random=st.data())
def test_altered_file(name: str, random: st.DataObject) -> None:
    """Formats without checksums promise less: a picture or a refusal, never another error."""
    data = bytearray(FILES[name])
    for _ in range(random.draw(st.integers(1, 3))):
        data[random.draw(st.integers(0, len(data) - 1))] = random.draw(st.integers(0, 255))
    outcome(bytes(data))


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(random=st.data())
def test_altered_header(name: str, random: st.DataObject) -> None:
    """The same for the first bytes, where sizes, kinds and offsets are."""
    data = bytearray(FILES[name])
    for _ in range(random.draw(st.integers(1, 3))):
        data[random.draw(st.integers(0, 64))] = random.draw(st.integers(0, 255))
    outcome(bytes(data))


@pytest.mark.parametrize("name", ["jpeg", "jpeg-grey", "jpeg-restarts", "jpeg-cmyk"])
@fuzz
@given(random=st.data())
def test_jpeg_cut_and_closed(name: str, random: st.DataObject) -> None:
    """Cut in the middle with an end marker put behind: Pillow would fill the rest with grey."""
    data = FILES[name]
    end = data.rindex(b"\xff\xda") + 40
    cut = data[: random.draw(st.integers(end, len(data) - 20))] + b"\xff\xd9"
    assert np.asarray(Image.open(io.BytesIO(cut)).convert("RGB")).shape == (128, 96, 3)
    with pytest.raises(InvalidImage, match="damaged or incomplete"):
        read_image(cut).decode()


def test_harmless_warnings_of_jpeg() -> None:
    """Stray bytes between the segments, as some cameras write them, lose nothing."""
    data = FILES["jpeg"]
    frame = data.index(b"\xff\xc0")
    for file in (data[:frame] + b"\0\0\0" + data[frame:], data + b"trailing bytes"):
        assert (pixels(file) == TRUE_PIXELS["jpeg"]).all()


def test_jpeg_of_endless_scans() -> None:
    """A small file cannot make the decoder pass over the picture thousands of times."""
    data = FILES["jpeg-progressive"]
    last_scan = data[data.rindex(b"\xff\xc4") : -2]
    assert outcome(data[:-2] + last_scan * 5 + data[-2:]) is not None
    with pytest.raises(InvalidImage, match="scans"):
        read_image(data[:-2] + last_scan * 200 + data[-2:]).decode()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_with_too_few_rows(channels: int, rows: int, interlaced: bool) -> None:
    """Rows that are missing in an otherwise sound PNG do not become black or transparent ones."""
    kind = 2 if channels == 3 else 0
    for values in (samples(channels, 8), samples(channels, 8) * 0, samples(channels, 8) * 0 + 255):
        whole = png(values, 8, kind, interlaced=interlaced)
        assert (pixels(whole) == values).all()
        short = png(values, 8, kind, interlaced=interlaced, rows_left_out=rows)
        with pytest.raises(InvalidImage):
            read_image(short).decode()


@pytest.mark.parametrize("compression", [8, 32773, 4])
def test_tiff_whose_strip_is_cut(compression: int) -> None:
    """The directory stands before the pixels, as scanners write it, and the end is missing."""
    name = {8: "tiff_deflate", 32773: "packbits", 4: "group4"}[compression]
    image = BILEVEL if compression == 4 else GREY
    tags = Image.open(io.BytesIO(whole := encode(image, "TIFF", compression=name))).tag_v2
    strip = whole[tags[273][0] :][: tags[279][0]]
    bits = (1,) if compression == 4 else (8,)
    options: dict[str, Any] = {
        "photometric": tags[262],
        "compression": compression,
        "length": len(strip),
    }
    assert (pixels(tiff(strip, *image.size, bits, **options)) == pixels(whole)).all()
    with pytest.raises(InvalidImage):
        read_image(tiff(strip[:-30], *image.size, bits, **options)).decode()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 999]
    + [encode(PAGE, format_) for format_ in ("PPM", "TGA", "ICO", "PCX", "DIB", "JPEG2000")],
)
def test_other_files(data: bytes) -> None:
    """What is in none of the formats is refused, even if Pillow could read it."""
    with pytest.raises(InvalidImage):
        read_image(data)


def test_decoding_in_many_threads() -> None:
    """Decoding at once in many threads, the same object too, gives the same pixels."""
    images = {name: read_image(data) for name, data in FILES.items()}
    with ThreadPoolExecutor(8) as pool:
        names = [*FILES] * 8
        decoded = pool.map(lambda name: np.asarray(images[name].decode()), names)
        assert all(
            (image == TRUE_PIXELS[name]).all() for name, image in zip(names, decoded, strict=True)
        )
