"""Image input: every kind of file gives exactly its pixels, or an error that says what is wrong."""

import base64
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFile, features

from image_files import bmp_with_alpha, encode, gif_frame, png, png_chunk, png_of, tiff
from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    decode_base64,
    pad_to_ratio,
    read_base64_image,
    read_image,
)

# Pillow warns about damaged TIFF directories, and pytest unsets the filter of `pagevec.pixels`.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

Array = np.ndarray[Any, Any]
WHITE = (255, 255, 255)


def pixels(data: bytes) -> Array:
    """(height, width, 3) as decoded, after checking what every decoded image promises."""
    encoded = read_image(data)
    image = encoded.decode()
    assert image.mode == "RGB"
    assert image.size == (encoded.width, encoded.height)
    return np.asarray(image).astype(int)


def over_white(colour: Array, alpha: Array) -> Array:
    return 255 - (255 - colour.astype(float)) * alpha[..., None] / 255


def page(width: int = 96, height: int = 128) -> Image.Image:
    """A small page: text-like strokes, a smooth part, a coloured corner, a white bottom."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for y in range(30, height - 20, 9):
        draw.text((4, y), "embedding pages", fill=(y, 20, 60))
    shade = Image.linear_gradient("L").resize((width // 2, 24))
    image.paste(Image.merge("RGB", (shade, shade.rotate(180), shade)), (width // 2, 2))
    draw.rectangle((0, 0, 20, 12), fill=(220, 30, 40))
    return image


PAGE = page()
GREY = PAGE.convert("L")
PALETTE = PAGE.quantize(32)
ALPHA = Image.linear_gradient("L").resize(PAGE.size)
RGBA = Image.merge("RGBA", (*PAGE.split(), ALPHA))
BILEVEL = PAGE.convert("1", dither=Image.Dither.NONE)
FLOAT = np.asarray(GREY).astype("<f4") / 255
CMYK = Image.merge("CMYK", (*PAGE.split(), ALPHA))

FILES = {
    "png": encode(PAGE, "PNG"),
    "png-palette": encode(PALETTE, "PNG", transparency=bytes(range(0, 256, 8))),
    "png-bilevel": encode(BILEVEL, "PNG"),
    "jpeg": encode(PAGE, "JPEG", quality=90),
    "jpeg-grey": encode(GREY, "JPEG"),
    "jpeg-progressive": encode(PAGE, "JPEG", progressive=True),
    "jpeg-restarts": encode(PAGE, "JPEG", restart_marker_blocks=5),
    "jpeg-cmyk": encode(CMYK, "JPEG"),
    "webp": encode(PAGE, "WEBP"),
    "webp-lossless": encode(PAGE, "WEBP", lossless=True),
    "webp-alpha": encode(RGBA, "WEBP"),
    "gif": encode(PALETTE, "GIF"),
    "gif-transparent": encode(PALETTE, "GIF", transparency=3),
    "bmp": encode(PAGE, "BMP"),
    "bmp-palette": encode(PALETTE, "BMP"),
    "tiff": encode(PAGE, "TIFF"),
    "tiff-directory-first": tiff(PAGE.tobytes(), *PAGE.size, (8, 8, 8), photometric=2),
    "tiff-lzw": encode(PAGE, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": encode(PAGE, "TIFF", compression="tiff_deflate"),
    "tiff-packbits": encode(PAGE, "TIFF", compression="packbits"),
    "tiff-jpeg": encode(PAGE, "TIFF", compression="jpeg"),
    "tiff-group4": encode(BILEVEL, "TIFF", compression="group4"),
    "tiff-float": tiff(FLOAT.tobytes(), *GREY.size, (32,), photometric=1, sample_format=3),
}
TRUE_PIXELS = {name: pixels(data) for name, data in FILES.items()}


# Modes


def samples(channels: int, depth: int, seed: int = 0) -> Array:
    """Random samples (13, 21, channels); the size is odd so that rows end inside a byte."""
    return np.random.default_rng(seed).integers(0, 2**depth, (13, 21, channels))


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


# Orientation

STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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


# Limits


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
    """Compressed text in a PNG that grows beyond bounds is refused."""
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 10_000_000))
    with pytest.raises(InvalidImage):
        read_image(png(samples(1, 8), 8, 0, text))


# Damage


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


# Base64

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


# Padding


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
