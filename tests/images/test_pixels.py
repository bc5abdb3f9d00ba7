"""Every kind of file gives exactly its pixels, the right way up."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from image_files import STORED_AS, bmp_with_alpha, encode, png, png_chunk, tiff
from images.pages import (
    ALPHA,
    BILEVEL,
    CMYK,
    GREY,
    HARMLESS_WARNINGS,
    PAGE,
    PALETTE,
    RGBA,
    TRUE_PIXELS,
    WHITE,
    over_white,
    pixels,
    samples,
)
from pagevec.images import (
    read_image,
)

pytestmark = HARMLESS_WARNINGS


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png(depth: int, interlaced: bool) -> None:
    """Grey PNG of every depth keeps its levels; 16 bits are scaled down, not cut off at 255."""
    values = samples(1, depth)
    expected = values * 255 // (2**depth - 1) if depth < 16 else values >> 8
    assert (pixels(png(values, depth, 0, interlaced=interlaced)) == expected).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png_with_a_transparent_level(depth: int) -> None:
    """The transparent level is meant in the file's own depth, and shows white."""
    values = samples(1, depth, seed=1)
    level = int(values[0, 0, 0])
    file = png(values, depth, 0, png_chunk(b"tRNS", struct.pack(">H", level)))
    shown = values * 255 // (2**depth - 1) if depth < 16 else values >> 8
    assert (pixels(file) == np.where(values == level, 255, shown)).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_png(depth: int) -> None:
    """RGB of 8 and 16 bits, without and with a transparent colour."""
    values = samples(3, depth)
    expected = values >> (depth - 8)
    assert (pixels(png(values, depth, 2)) == expected).all()

    transparent = png_chunk(b"tRNS", struct.pack(">HHH", *values[4, 5].tolist()))
    expected[4, 5] = WHITE
    assert (pixels(png(values, depth, 2, transparent)) == expected).all()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [4, 6])
def test_png_with_alpha(colour_type: int, depth: int) -> None:
    """Grey and colour with alpha come out as seen on white paper."""
    values = samples(2 if colour_type == 4 else 4, depth)
    high = values >> (depth - 8)
    expected = over_white(high[..., :-1], high[..., -1])
    assert np.abs(pixels(png(values, depth, colour_type)) - expected).max() <= 1


@pytest.mark.parametrize("alphas", [b"", b"\xff\x00", bytes([0, 128, 255, 3])])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_png(depth: int, alphas: bytes) -> None:
    """Palettes of every depth: opaque, with one transparent entry, with an alpha for some."""
    values = samples(1, depth)
    colours = np.random.default_rng(3).integers(0, 256, (2**depth, 3))
    alphas = alphas[: 2**depth]
    extra = [png_chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    extra += [png_chunk(b"tRNS", alphas)] if alphas else []
    table = np.array([*alphas, *[255] * (2**depth - len(alphas))])
    expected = over_white(colours[values[..., 0]], table[values[..., 0]])
    assert np.abs(pixels(png(values, depth, 3, *extra)) - expected).max() <= 1


def test_first_frame_of_an_animated_png() -> None:
    """An animation counts as its first frame."""
    file = encode(PAGE, "PNG", save_all=True, append_images=[Image.new("RGB", PAGE.size, "red")])
    assert (pixels(file) == np.asarray(PAGE)).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("image", [PAGE, GREY, CMYK], ids=["colour", "grey", "cmyk"])
def test_jpeg_is_as_pillow_decodes_it(image: Image.Image, options: dict[str, Any]) -> None:
    """The stricter decoder gives the very pixels of Pillow's; CMYK is not inverted."""
    file = encode(image, "JPEG", quality=90, **options)
    assert (pixels(file) == np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))).all()
    assert np.abs(pixels(file) - np.asarray(image.convert("RGB"))).mean() < 6


def test_jpeg_in_ycck() -> None:
    """YCCK, which Photoshop writes for print, is converted: neutral ink shows as neutral grey."""
    inks = Image.merge("CMYK", [Image.new("L", (32, 32), level) for level in (90, 127, 127, 0)])
    file = encode(inks, "JPEG", quality=95)
    plain = b"Adobe\0\x64" + b"\0" * 5
    assert plain in file
    ycck = file.replace(plain, plain[:-1] + b"\x02")
    assert (pixels(ycck) == np.asarray(Image.open(io.BytesIO(ycck)).convert("RGB"))).all()
    assert np.abs(pixels(ycck) - 90).max() <= 4


def test_multi_picture_jpeg() -> None:
    """The pictures of a phone (MPO: several JPEGs in one file) count as JPEG, the first one."""
    file = encode(PAGE, "MPO", save_all=True, append_images=[PAGE.rotate(180)])
    assert read_image(file).format == "JPEG"
    assert np.abs(pixels(file) - np.asarray(PAGE)).mean() < 6


def test_webp() -> None:
    """Lossless pixels are exact, alpha lies over white, an animation is its first frame."""
    assert (TRUE_PIXELS["webp-lossless"] == np.asarray(PAGE)).all()
    clear = encode(RGBA, "WEBP", lossless=True, exact=True)
    assert np.abs(pixels(clear) - over_white(np.asarray(PAGE), np.asarray(ALPHA))).max() <= 1
    moving = encode(PAGE, "WEBP", lossless=True, save_all=True, append_images=[PAGE.rotate(180)])
    assert (pixels(moving) == np.asarray(PAGE)).all()


def test_gif() -> None:
    """The palette is exact, the transparent entry is white, an animation is its first frame."""
    true = np.asarray(PALETTE.convert("RGB"))
    assert (TRUE_PIXELS["gif"] == true).all()
    clear = np.asarray(PALETTE) == 3
    assert clear.any()
    assert (TRUE_PIXELS["gif-transparent"] == np.where(clear[..., None], 255, true)).all()
    assert (pixels(encode(GREY, "GIF")) == np.asarray(PAGE.convert("L"))[..., None]).all()
    moving = encode(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)])
    assert (pixels(moving) == true).all()


def test_gif_whose_frame_is_smaller_than_its_screen() -> None:
    """What the first frame leaves free is white, not the colour that happens to be number 0."""
    file = bytearray(encode(Image.new("P", (8, 8), 0), "GIF"))
    struct.pack_into("<HH", file, 6, 20, 10)
    assert (pixels(bytes(file))[:8, :8] == 0).all()
    assert (pixels(bytes(file))[:, 8:] == 255).all()


def test_bmp() -> None:
    """BMP in colour, with a palette and with 1 bit."""
    assert (TRUE_PIXELS["bmp"] == np.asarray(PAGE)).all()
    assert (TRUE_PIXELS["bmp-palette"] == np.asarray(PALETTE.convert("RGB"))).all()
    assert (pixels(encode(BILEVEL, "BMP")) == np.asarray(BILEVEL.convert("RGB"))).all()


def test_bmp_with_alpha() -> None:
    """Alpha counts, unless it is zero everywhere: then the writer left it unused."""
    values = samples(4, 8)
    expected = over_white(values[..., :3], values[..., 3])
    assert np.abs(pixels(bmp_with_alpha(values)) - expected).max() <= 1
    values[..., 3] = 0
    assert (pixels(bmp_with_alpha(values)) == values[..., :3]).all()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize(
    "image", [PAGE, GREY, PALETTE, BILEVEL, CMYK, RGBA], ids=lambda image: image.mode
)
def test_tiff(image: Image.Image, compression: str | None) -> None:
    """Every mode that Pillow writes, with each lossless compression."""
    expected = np.asarray(image.convert("RGB"))
    if image.mode == "RGBA":
        expected = over_white(np.asarray(PAGE), np.asarray(ALPHA))
    file = encode(image, "TIFF", compression=compression)
    assert np.abs(pixels(file) - expected).max() <= 1


def test_first_page_of_a_tiff() -> None:
    """A TIFF of several pages counts as its first."""
    file = encode(PAGE, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert (pixels(file) == np.asarray(PAGE)).all()


def test_tiff_with_multiplied_alpha() -> None:
    """Grey already multiplied with its alpha is not multiplied again."""
    if int((features.version("pil") or "0").split(".")[0]) < 13:
        pytest.skip("this Pillow refuses such files")
    stored = np.dstack([np.full((4, 6), 100), np.full((4, 6), 128)]).astype(np.uint8)
    file = encode(Image.fromarray(stored, "LA"), "TIFF")
    straight, multiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert straight in file
    assert np.abs(pixels(file.replace(straight, multiplied)) - (100 + 127)).max() <= 1


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "bits", "sample_format", "full"),
    [("u2", 16, 1, 65535), ("i4", 32, 2, 65535), ("f4", 32, 3, 1), ("f4", 32, 3, 65535)],
)
def test_tiff_of_wide_grey_samples(
    kind: str, bits: int, sample_format: int, full: int, order: str, white_is_zero: bool
) -> None:
    """16 and 32 bits, whole or floating: scaled to 8 bits, either end of the scale white."""
    if white_is_zero and (kind == "i4" or order + kind == ">u2"):
        pytest.skip("Pillow does not know this combination")
    levels = np.linspace(0, full, 9 * 5).reshape(5, 9).astype(order + kind)
    file = tiff(
        levels.tobytes(),
        9,
        5,
        (bits,),
        photometric=0 if white_is_zero else 1,
        sample_format=sample_format,
        order=order,
    )
    expected = levels.astype(float)[..., None] * 255 / full
    expected = 255 - expected if white_is_zero else expected
    assert np.abs(pixels(file) - expected).max() <= 1


def test_tiff_of_other_wide_samples() -> None:
    """32 bits unsigned up to the top, negative floats, no numbers, and 16 bits in colour."""
    unsigned = np.array([[0, 2**31, 2**32 - 1]], "<u4").tobytes()
    assert pixels(tiff(unsigned, 3, 1, (32,), photometric=1))[0, :, 0].tolist() == [0, 128, 255]

    floats = np.array([[-1, 0, 1, np.nan]], "<f4").tobytes()
    shown = pixels(tiff(floats, 4, 1, (32,), photometric=1, sample_format=3))
    assert shown[0, :, 0].tolist() == [0, 128, 255, 128]

    colour = samples(3, 16)
    file = tiff(colour.astype("<u2").tobytes(), 21, 13, (16,) * 3, photometric=2)
    assert (pixels(file) == colour >> 8).all()


def exif(orientation: Any) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_orientation(orientation: int, format_: str) -> None:
    """All eight orientations come out upright: the size before decoding, the pixels after."""
    how = STORED_AS[orientation]
    stored = PAGE if how is None else PAGE.transpose(how)
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    file = encode(stored, format_, exif=exif(orientation), **options.get(format_, {}))

    encoded = read_image(file)
    assert (encoded.width, encoded.height) == PAGE.size
    assert np.abs(pixels(file) - np.asarray(PAGE)).mean() < 2
    assert np.abs(pixels(file)[2:9, 2:16] - (220, 30, 40)).max() < 12  # the corner, top left


def test_orientation_behind_the_pixels_of_a_png() -> None:
    """EXIF may follow the pixels in a PNG; the size is right before they are decoded."""
    plain = encode(PAGE.transpose(Image.Transpose.ROTATE_90), "PNG")
    late = png_chunk(b"eXIf", exif(6).tobytes()[6:])
    file = plain[:-12] + late + plain[-12:]
    assert (read_image(file).width, read_image(file).height) == PAGE.size
    assert (pixels(file) == np.asarray(PAGE)).all()


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08"]
)
def test_unreadable_exif_is_ignored(content: bytes) -> None:
    """Broken EXIF does not spoil a picture whose pixels are whole."""
    for format_ in ("JPEG", "PNG", "WEBP"):
        file = encode(PAGE, format_, exif=b"Exif\0\0" + content)
        assert read_image(file).orientation == 1
        assert pixels(file).shape == (128, 96, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_ignored(orientation: int) -> None:
    """Numbers outside 1-8 mean nothing."""
    assert read_image(encode(PAGE, "JPEG", exif=exif(orientation))).orientation == 1
