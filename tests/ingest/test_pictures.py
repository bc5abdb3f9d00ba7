"""Pictures are ingested as the HTTP service reads them, whatever their mode, depth and format."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import Service
from image_files import STORED_AS, encode, gif_frame, png_chunk, png_of, tiff
from images.pages import ALPHA, BILEVEL, CMYK, FILES, GREY, HARMLESS_WARNINGS, PAGE, PALETTE, RGBA
from pagevec.client import Client
from pagevec.errors import DocumentError
from pagevec.grid import PageResizing
from pagevec.images import read_image
from pagevec.ingest.boundary import open_document
from pagevec.ingest.page import ReadOptions
from pagevec.search.index import Index
from pagevec.stores import open_store
from pagevec.stores.condense import OFF
from pagevec.types import MultiVector, Page, PageKey

pytestmark = HARMLESS_WARNINGS

SIXTEEN = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
INTEGERS = Image.fromarray(np.asarray(GREY).astype(np.int32))
FLOATS = Image.fromarray(np.asarray(GREY).astype(np.float32) / 255)
LA = Image.merge("LA", (GREY, ALPHA))

_MODES = {
    "1": BILEVEL, "L": GREY, "LA": LA, "P": PALETTE, "RGB": PAGE, "RGBA": RGBA, "CMYK": CMYK,
    "I;16": SIXTEEN, "I": INTEGERS, "F": FLOATS,
}  # fmt: skip
_MODES_OF = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("L", "LA", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": tuple(_MODES),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
}
_COMPRESSIONS = {
    "tiff_lzw": ("L", "RGBA", "I;16"), "tiff_adobe_deflate": ("P", "RGB", "F"),
    "packbits": ("1", "L"), "group3": ("1",), "group4": ("1",), "tiff_ccitt": ("1",),
    "jpeg": ("L", "RGB"), "zstd": ("RGB",),
}  # fmt: skip


def turned(image: Image.Image, orientation: int, format_: str) -> bytes:
    """`image` as a file that stores it turned, and says so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = STORED_AS[orientation]
    options = {"lossless": True} if format_ == "WEBP" else {}
    return encode(
        image.transpose(undo) if undo is not None else image, format_, exif=exif, **options
    )


def make_files() -> dict[str, bytes]:
    files = {f"kinds-{name}": data for name, data in FILES.items()}
    for format_, modes in _MODES_OF.items():
        files |= {f"{format_}-{mode}": encode(_MODES[mode], format_) for mode in modes}
    for compression, modes in _COMPRESSIONS.items():
        for mode in modes:
            file = encode(_MODES[mode], "TIFF", compression=compression)
            files[f"TIFF-{compression}-{mode}"] = file
    for format_ in ("PNG", "JPEG", "WEBP", "TIFF"):
        for number in range(1, 9):
            files[f"{format_}-turned-{number}"] = turned(PAGE, number, format_)
    files["PNG-grey-transparent"] = encode(GREY, "PNG", transparency=255)
    files["PNG-colour-transparent"] = encode(PAGE, "PNG", transparency=(220, 30, 40))
    files["PNG-turned-grey16"] = turned(SIXTEEN, 6, "PNG")
    # Halved before anything else is done with it.
    files["PNG-large"] = encode(PAGE.resize((4200, 5600)), "PNG", compress_level=1)
    files["JPEG-large"] = encode(PAGE.resize((4200, 5600)), "JPEG")
    return {name.replace(";", ""): data for name, data in files.items()}


PICTURES = make_files()


@dataclass(frozen=True)
class Ingested:
    """What was stored, what the service answers, and how the model resizes."""

    pages: dict[str, list[Page]]
    answers: dict[str, MultiVector]
    resizing: PageResizing


@pytest.fixture(scope="module")
def ingested(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingested]:
    """All pictures, ingested once; those of TIFF as frames of one file, too."""
    folder = tmp_path_factory.mktemp("pictures") / "in"
    folder.mkdir()
    for name, data in PICTURES.items():
        (
            folder / f"{name}.{name.partition('-')[0].lower()[:4]}".replace(".kind", ".png")
        ).write_bytes(data)
    frames = [image.copy() for image in _MODES.values()]  # saving leaves traces in an image
    encoded = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    (folder / "frames.jpg").write_bytes(encoded)  # its content decides, not its name
    store = folder.parent / "store"
    with Client(service.url, service.key, resize=False, dtype="float32") as client:
        with Index(store, client, condense=OFF) as index:  # how pictures are read is compared
            assert not index.add(folder).failed
        answers = dict(zip(PICTURES, client.embed_images(list(PICTURES.values())), strict=True))
        resizing = client.info().resizing
    assert resizing is not None
    pages: dict[str, list[Page]] = {}
    with open_store(str(store)) as opened:
        for record in opened.ledger.records():
            keys = [PageKey(record.name, number + 1) for number in range(record.pages or 0)]
            pages[Path(record.name).stem] = opened.fetch(keys)
    yield Ingested(pages, answers, resizing)


def least_cosine(one: MultiVector, other: MultiVector) -> float:
    """The lowest cosine between vectors of the same place."""
    assert one.shape == other.shape
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).min())


@pytest.mark.parametrize("name", PICTURES)
def test_as_the_service_reads_it(ingested: Ingested, name: str) -> None:
    """Vectors, grid and thumbnail of an ingested picture are those of what the service sees."""
    [page] = ingested.pages[name]
    assert least_cosine(page.vectors, ingested.answers[name]) >= 0.999
    seen = read_image(PICTURES[name]).decode()
    assert page.grid == ingested.resizing.grid(*seen.size)
    assert page.thumbnail is not None
    with Image.open(BytesIO(page.thumbnail)) as thumbnail:
        expected = np.asarray(seen.resize(thumbnail.size), float)
        assert np.abs(np.asarray(thumbnail.convert("RGB"), float) - expected).mean() < 8
        assert thumbnail.width / thumbnail.height == pytest.approx(96 / 128, abs=0.01)


@pytest.mark.parametrize("frame", range(len(_MODES)))
def test_frames(ingested: Ingested, frame: int) -> None:
    """Each frame of a TIFF is the page that the same picture alone is."""
    alone = f"TIFF-{list(_MODES)[frame]}".replace(";", "")
    page = ingested.pages["frames"][frame]
    assert page.key.number == frame + 1
    assert least_cosine(page.vectors, ingested.answers[alone]) >= 0.999
    assert page.grid == ingested.pages[alone][0].grid


def word_page(word: str) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A white page with one word in its lower left, and the box of that word."""
    image, font = Image.new("L", (900, 1200), 255), ImageFont.load_default(60)
    ImageDraw.Draw(image).text((90, 800), word, fill=0, font=font)
    left, top, right, bottom = ImageDraw.Draw(image).textbbox((90, 800), word, font=font)
    return image, (int(left), int(top), int(right), int(bottom))


def test_the_map_lies_on_the_word(service: Service, tmp_path: Path) -> None:
    """Turned, transparent and 16-bit pictures: the map is highest where a reader sees the word."""
    image, box = word_page("harbour")
    ink = image.point(lambda level: 255 - level)
    black = Image.new("L", image.size, 0)
    files = {
        "plain.png": encode(image, "PNG"),
        "turned-6.jpg": turned(image, 6, "JPEG"),
        "turned-8.webp": turned(image.convert("RGB"), 8, "WEBP"),
        "turned-3.tif": turned(image, 3, "TIFF"),
        "on-nothing.png": encode(Image.merge("LA", (black, ink)), "PNG"),
        "on-nothing.tif": encode(Image.merge("RGBA", (black, black, black, ink)), "TIFF"),
        "deep.tif": encode(Image.fromarray(np.asarray(image).astype(np.uint16) * 257), "TIFF"),
    }
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    with Client(service.url, service.key) as client, Index(tmp_path / "s", client) as index:
        index.add(tmp_path / "in")
        hits = index.search("harbour")
        assert len(hits) == len(files)
        for hit in hits:
            values = hit.maps().overall.values
            row, column = np.unravel_index(values.argmax(), values.shape)
            x, y = (column + 0.5) * 900 / values.shape[1], (row + 0.5) * 1200 / values.shape[0]
            assert box[0] - 40 <= x <= box[2] + 40, hit.document
            assert box[1] - 40 <= y <= box[3] + 40, hit.document
            picture = hit.picture().convert("L")
            shown = np.asarray(picture.resize(image.size), float)
            assert np.abs(shown - np.asarray(image, float)).mean() < 8, hit.document


def test_other_formats(tmp_path: Path) -> None:
    """HEIC, AVIF, JPEG 2000 and `.jfif` show what they hold, the transparent over white."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    transparent = Image.merge("RGBA", (*PAGE.split(), ALPHA))
    true = read_image(encode(transparent, "PNG")).decode()
    cases = {
        "a.heic": (encode(PAGE, "HEIF", quality=90), PAGE),
        "alpha.heic": (encode(transparent, "HEIF", quality=90), true),
        "a.avif": (encode(PAGE, "AVIF", quality=90), PAGE),
        "alpha.avif": (encode(transparent, "AVIF", quality=90), true),
        "turned.avif": (turned(PAGE, 6, "AVIF"), PAGE),
        "a.jp2": (encode(PAGE, "JPEG2000"), PAGE),
        "deep.jp2": (encode(SIXTEEN, "JPEG2000"), GREY.convert("RGB")),
        "a.jfif": (encode(PAGE, "JPEG"), PAGE),
    }
    for name, (data, expected) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert difference(draw(tmp_path / name), expected) < 8, name


def draw(file: Path, number: int = 1) -> Image.Image:
    with open_document(file) as pages:
        content = pages.make(number).content
    assert isinstance(content, bytes)
    return Image.open(BytesIO(content)).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def test_a_fax_gets_its_shape(tmp_path: Path) -> None:
    """A fax of 204 x 98 dots per inch is stretched to the shape of the sheet; turned ones, too."""
    sheet = Image.new("1", (1728, 1078), 1)
    ImageDraw.Draw(sheet).rectangle((100, 100, 300, 200), fill=0)
    sheet.save(tmp_path / "fax.tif", compression="group4", dpi=(204, 98))
    assert draw(tmp_path / "fax.tif").size == (1728, 2244)
    exif = Image.Exif()
    exif[0x0112] = 6
    sheet.convert("L").save(tmp_path / "fax.jpg", dpi=(204, 98), exif=exif)
    assert draw(tmp_path / "fax.jpg").size == (2244, 1728)


def test_frames_of_other_shapes_and_orientations(tmp_path: Path) -> None:
    """Each frame of a TIFF has its own size and orientation."""
    frames = [Image.new("L", (60, 90), 200), Image.new("L", (120, 50), 100)]
    first = Image.Exif()
    first[0x0112] = 6
    frames[0].encoderinfo = {"exif": first}
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:], exif=first)
    assert draw(tmp_path / "a.tif", 1).size == (90, 60)
    with open_document(tmp_path / "a.tif") as pages:
        assert pages.count == 2


def test_a_large_scan(tmp_path: Path) -> None:
    """Scans of A3 at 600 dpi are read, one and two in a file; print stays where it was."""
    scan = Image.new("1", (7016, 9921), 1)
    ImageDraw.Draw(scan).rectangle((1000, 2000, 3000, 2600), fill=0)
    scan.save(tmp_path / "two.tif", compression="group4", save_all=True, append_images=[scan])
    scan.save(tmp_path / "one.png", compress_level=1)
    scan.convert("L").save(tmp_path / "one.jpg")
    resizing = PageResizing(28, 4 * 784, 768 * 784, 4, 200)
    for name, number in (("two.tif", 1), ("two.tif", 2), ("one.png", 1), ("one.jpg", 1)):
        with open_document(tmp_path / name, ReadOptions(resizing)) as pages:
            page = pages.make(number)
        assert isinstance(page.content, bytes)
        assert page.size is not None and page.size[0] / page.size[1] == pytest.approx(
            7016 / 9921, 0.001
        )
        shown = np.asarray(Image.open(BytesIO(page.content)).convert("L"))
        rows, columns = np.nonzero(shown < 128)
        down, across = shown.shape[0] / 9921, shown.shape[1] / 7016
        found = [rows.min(), rows.max(), columns.min(), columns.max()]
        expected = [2000 * down, 2600 * down, 1000 * across, 3000 * across]
        assert np.abs(np.subtract(found, expected)).max() <= 1.5


def huge(kind: str) -> bytes:
    """A small file that says it is a picture of 60,000 x 60,000 or more pixels."""
    if kind == "gif":
        return gif_frame(65_535, 65_535, (0, 0, 65_535, 65_535), disposal=2)
    if kind == "png":
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
        return png_of(header, png_chunk(b"IDAT", zlib.compress(bytes(60_000 * 4 + 1))))
    if kind == "tif":
        return tiff(b"\0", 60_000, 60_000, (8, 8, 8), photometric=2)
    # Lossless WebP says its size in 14 bits each, after its signature.
    header = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14)
    chunk = b"VP8L" + struct.pack("<I", 100) + header.ljust(100, b"\0")
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize("kind", ["gif", "png", "tif", "webp"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    """A picture of more pixels than fit is refused, by name, before it is decoded."""
    file = tmp_path / f"bomb.{kind}"
    file.write_bytes(huge(kind))
    with pytest.raises(DocumentError, match=rf"bomb\.{kind}: .*(pixels|too large)"):
        draw(file)


def test_svg(tmp_path: Path) -> None:
    """SVG is drawn over white, legibly, at a size within limits whatever its own is."""
    pytest.importorskip("resvg_py")
    start = '<svg xmlns="http://www.w3.org/2000/svg"'
    box = '<rect width="50%" height="100%" fill="#dc1e28"/></svg>'
    cases = {
        f'{start} width="40" height="20">{box}': 2.0,
        f'{start} viewBox="0 0 10 20">{box}': 0.5,
        f'{start} viewBox="0 0 10 30000">{box}': 1 / 3000,
        f'<?xml version="1.0"?><!-- made by hand -->{start} viewBox="0,0,9e5,9e5">{box}': 1.0,
    }
    for svg, shape in cases.items():
        (tmp_path / "a.svg").write_text(svg)
        image = draw(tmp_path / "a.svg")
        assert image.width * image.height <= 16_100_000
        assert image.width / image.height == pytest.approx(shape, rel=0.1)
        middle = image.height // 2
        assert image.getpixel((0, middle)) == (220, 30, 40)
        assert image.getpixel((image.width - 1, middle)) == (255, 255, 255)
    (tmp_path / "a.svg").write_text("<svg><rect></svg>")
    with pytest.raises(DocumentError, match=r"a\.svg: .*damaged"):
        draw(tmp_path / "a.svg")


def test_damaged_pictures(tmp_path: Path) -> None:
    """Pictures that are cut short, empty or of another kind are refused by name, with a reason."""
    for format_ in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000"):
        whole = encode(Image.effect_noise((200, 200), 50).convert("RGB"), format_)
        file = tmp_path / "a.png"
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DocumentError, match=r"a\.png: .*(damaged|cannot be opened)"):
            draw(file)
    for content, reason in (
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"%PDF-1.7", "not a PDF"),
    ):
        file.write_bytes(content)
        with pytest.raises(DocumentError, match=rf"a\.png: .*{reason}"):
            draw(file)
