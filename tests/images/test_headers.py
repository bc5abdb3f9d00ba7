"""The readers of headers agree with Pillow, and with nothing else do they fail in another way."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from image_files import encode, gif_frame, png_chunk, tiff, with_tags
from images.pages import BILEVEL, CMYK, FILES, GREY, HARMLESS_WARNINGS, PAGE, PALETTE, RGBA
from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.images import ImageLimits, read_image
from pagevec.images.headers import count_frames, find_format, read_header
from pagevec.images.plain import plain_file

pytestmark = HARMLESS_WARNINGS

_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"),
    "BMP": ("1", "L", "P", "RGB"),
}
_OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({}, {"progressive": True}, {"comment": b"c" * 300}, {"restart_marker_blocks": 1}),
    "PNG": ({}, {"dpi": (300, 300)}, {"icc_profile": b"p" * 999}),
    "WEBP": ({}, {"lossless": True}, {"icc_profile": b"p" * 999}, {"exif": b"Exif\0\0II*\0"}),
    "GIF": ({}, {"comment": b"c" * 999}, {"disposal": 2}, {"interlace": 0}),
    "TIFF": ({}, {"big_tiff": True}, {"compression": "tiff_lzw"}, {"dpi": (200, 100)}),
    "BMP": ({}, {"dpi": (300, 300)}),
}
_MARKS = sorted({data[:16] for data in FILES.values()})
_EXPECTED = (InvalidImage, ValueError, IndexError, struct.error)


@given(random=st.data(), width=st.integers(1, 80), height=st.integers(1, 80))
def test_as_pillow_reads_it(random: st.DataObject, width: int, height: int) -> None:
    """Format, size, orientation and resolution of files of all formats, modes and options."""
    format_ = random.draw(st.sampled_from(sorted(_MODES)))
    mode = random.draw(st.sampled_from(_MODES[format_]))
    options = dict(random.draw(st.sampled_from(_OPTIONS[format_])))
    turned = random.draw(st.integers(1, 8))
    if format_ in ("PNG", "JPEG") and not options:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = turned
    else:
        turned = 1
    picture = Image.new(mode, (width, height))
    if mode == "P":  # of no colours, Pillow before 13 writes a BMP that it cannot read
        picture.putpalette([0, 0, 0])
    data = encode(picture, format_, **options)
    header = read_header(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.format, header.width, header.height) == (image.format, *image.size)
        assert header.orientation == turned
        with Image.open(plain_file(data, format_), formats=[format_]) as plain:
            assert (plain.mode, plain.size) == (image.mode, image.size)
            assert plain.info.get("dpi") == image.info.get("dpi")
            assert (np.asarray(plain) == np.asarray(image)).all()
    assert header.area == width * height


_BIG_TIFF = b"II+\0\x08\0\0\0"


@given(st.sampled_from(_MARKS), st.integers(2, 16), st.binary(max_size=400))
@example(b"II*\0\x08\0\0\0", 8, b"\xff\xff")
@example(b"GIF89a", 6, b"")
@example(_BIG_TIFF, 8, struct.pack("<Q", 2**63))
@example(_BIG_TIFF, 8, struct.pack("<QQ", 16, 1) + struct.pack("<HHQQQ", 256, 3, 9, 2**64 - 1, 0))
def test_any_bytes(mark: bytes, length: int, rest: bytes) -> None:
    """Whatever follows the first bytes, a reader fails as it says, or reads a header."""
    data = mark[:length] + rest
    try:
        header = read_header(data)
    except _EXPECTED:
        return
    assert header.format == find_format(data)
    assert min(header.width, header.height, header.work, header.memory) > 0


@pytest.mark.parametrize("name", FILES)
@given(random=st.data())
def test_altered_bytes(name: str, random: st.DataObject) -> None:
    """The same for real files in which a few bytes are others."""
    data = bytearray(FILES[name])
    for _ in range(random.draw(st.integers(1, 4))):
        data[random.draw(st.integers(0, min(400, len(data) - 1)))] = random.draw(
            st.integers(0, 255)
        )
    try:
        header = read_header(bytes(data))
    except _EXPECTED:
        return
    assert min(header.width, header.height, header.work, header.memory) > 0


def test_pillow_sees_nothing_but_the_picture() -> None:
    """Texts, profiles, animations and further pictures stay behind."""
    text = png_chunk(b"tEXt", b"Comment\0secret") + png_chunk(b"quUx", b"secret")
    png = FILES["png"]
    laden = {
        "PNG": png[:33] + text + png[33:-12] + text + png[-12:],
        "JPEG": encode(PAGE, "JPEG", comment=b"secret", icc_profile=b"secret"),
        "GIF": encode(PALETTE, "GIF", comment=b"secret"),
        "WEBP": encode(PAGE, "WEBP", icc_profile=b"secret", xmp=b"secret"),
    }
    for format_, data in laden.items():
        assert b"secret" in data
        assert b"secret" not in plain_file(data, format_).getvalue(), format_
    moving = encode(RGBA, "WEBP", save_all=True, append_images=[RGBA.rotate(180)])
    assert plain_file(moving, "WEBP").getvalue().count(b"ANMF") == 1 < moving.count(b"ANMF")
    pages = encode(PAGE.copy(), "TIFF", save_all=True, append_images=[GREY.copy()])
    with Image.open(plain_file(pages, "TIFF", 1)) as second:
        assert (second.mode, getattr(second, "n_frames", 0)) == ("L", 1)


def test_frames_of_a_tiff() -> None:
    """Each frame has a header of its own; a frame that is not there is an error."""
    modes = [PAGE, GREY.resize((7, 5)), BILEVEL, CMYK]
    modes = [image.copy() for image in modes]  # saving leaves traces in an image
    data = encode(modes[0], "TIFF", save_all=True, append_images=modes[1:])
    assert count_frames(data) == 4
    sizes = [(header.width, header.height) for header in (read_header(data, n) for n in range(4))]
    assert sizes == [image.size for image in modes]
    with pytest.raises(ValueError, match="no 5 pictures"):
        read_header(data, 4)


def test_a_frame_does_not_pay_for_others() -> None:
    """The scans of a hundred pages in JPEG are not the work of the first."""
    pages = encode(
        PAGE, "TIFF", compression="jpeg", save_all=True, append_images=[PAGE.copy()] * 99
    )
    alone = encode(PAGE, "TIFF", compression="jpeg")
    work = read_header(pages).work - len(pages) // 2
    assert work <= 2 * (read_header(alone).work - len(alone) // 2)


def test_limits_hold_for_what_decoding_fills() -> None:
    """A tile that is far larger than its picture, and a frame that is larger than its screen."""
    limits = ImageLimits(max_pixels=10_000)
    small = encode(GREY.resize((10, 10)), "TIFF", compression="tiff_lzw")
    tiled = with_tags(small, {322: (4, 1, 160), 323: (4, 1, 160)})
    with pytest.raises(ImageTooLarge, match=r"10 x 10 pixels; its tiles have 25,600 pixels"):
        read_image(tiled, limits)
    with pytest.raises(ImageTooLarge, match="200 x 300"):
        read_image(gif_frame(10, 10, (0, 0, 200, 300)), limits)


def test_scans_count_as_often_as_they_pass() -> None:
    """A JPEG whose scans pass over its pixels too often is refused, baseline or progressive."""
    for name in ("jpeg", "jpeg-progressive"):
        data = FILES[name]
        scan = data[data.rindex(b"\xff\xda") : -2]
        few, many = (data[:-2] + scan * count + b"\xff\xd9" for count in (10, 60))
        limits = ImageLimits(max_pixels=PAGE.width * PAGE.height)
        assert read_image(few, ImageLimits()).decode_pixels > 5 * PAGE.width * PAGE.height
        with pytest.raises(ImageTooLarge, match="takes as long as"):
            read_image(many, limits)


def test_bits_that_no_decoder_reads() -> None:
    """A JPEG of 12 bits is refused in words that say so."""
    data = bytearray(FILES["jpeg"])
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(InvalidImage, match="3 samples of 12 bits"):
        read_image(bytes(data))


def test_values_that_no_picture_has() -> None:
    """A tag that decides on the pixels may not name millions of values; others may."""
    file = tiff(bytes(100), 10, 10, (8,), photometric=1)
    at = file.index(struct.pack("<HH", 339, 3))
    huge = struct.pack("<HHII", 339, 3, 2**31, 8)
    with pytest.raises(InvalidImage):
        read_image(file[:at] + huge + file[at + 12 :])
    other = struct.pack("<HHII", 37724, 3, 2**31, 8)
    assert read_image(file[:at] + other + file[at + 12 :]).decode().size == (10, 10)


def test_chunks_of_pixels_are_joined() -> None:
    """Pixels in chunks of 8 KB, and of one byte, are those in one chunk."""
    rows = b"".join(b"\0" + bytes(range(200)) for _ in range(100))
    content = zlib.compress(rows)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 200, 100, 8, 0, 0, 0, 0))
    shown = []
    for size in (1, 100, 8192):
        pieces = (content[at : at + size] for at in range(0, len(content), size))
        chunks = b"".join(png_chunk(b"IDAT", piece) for piece in pieces)
        file = b"\x89PNG\r\n\x1a\n" + header + chunks + png_chunk(b"IEND", b"")
        shown.append(np.asarray(read_image(file).decode()))
    assert (shown[0] == shown[1]).all() and (shown[1] == shown[2]).all()
    assert (shown[0][0, :, 0] == np.arange(200)).all()
