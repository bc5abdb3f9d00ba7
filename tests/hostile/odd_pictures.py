"""Pictures whose cost is not what their size says: one maker for each kind of trick.

Each maker draws its numbers from a generator, so that a test can try many of a kind.
"""

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from image_files import bmp_in_runs, encode, gif_frame, png, png_chunk, png_of, tiff, with_tags
from images.pages import PAGE, samples

Maker = Callable[[random.Random], bytes]
_JPEG = encode(PAGE, "JPEG")
_SCANS = encode(PAGE, "JPEG", progressive=True)
_LZW = encode(PAGE, "TIFF", compression="tiff_lzw")
_BOMB = zlib.compress(bytes(100 << 20))
_PNG_HEADER = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
_PNG_PIXELS = png_chunk(b"IDAT", zlib.compress(bytes(65 * 64)))


def one_huge_tile(draw: random.Random) -> bytes:
    """100 x 100 pixels in one tile of 46,000 x 46,000 or so, compressed."""
    side = draw.randrange(20_000, 60_000) // 16 * 16
    content = zlib.compress(bytes(2 << 20))
    at = len(_LZW) + len(_LZW) % 2
    changes = {
        256: (4, 1, 100), 257: (4, 1, 100), 259: (3, 1, 8), 322: (4, 1, side), 323: (4, 1, side),
        324: (4, 1, at), 325: (4, 1, len(content)),
    }  # fmt: skip
    return with_tags(_LZW.ljust(at, b"\0") + content, changes)


def more_strips_than_rows(draw: random.Random) -> bytes:
    """Millions of places of strips for a small picture."""
    count = draw.randrange(100_000, 400_000)
    changes = {tag: (4, count, len(_LZW) + len(_LZW) % 2) for tag in (273, 279)}
    return with_tags(_LZW.ljust(len(_LZW) + len(_LZW) % 2, b"\0") + bytes(4 * count), changes)


def huge_values_of_tags(draw: random.Random) -> bytes:
    """Tags that name millions of values, kept and left out, and one that lies nowhere."""
    tag = draw.choice([258, 259, 262, 270, 274, 317, 320, 339, 700, 34675, 37724])
    return with_tags(_LZW, {tag: (draw.choice([1, 3, 4, 7]), 2**32 - draw.randrange(1, 9999), 8)})


def directory_of_many_entries(draw: random.Random) -> bytes:
    """A directory with tens of thousands of entries."""
    count = draw.randrange(5_000, 65_535)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + bytes(12 * count + 4)


def directories_in_a_ring(draw: random.Random) -> bytes:
    """A picture whose next directory is the picture itself."""
    file = bytearray(tiff(bytes(100 * draw.randrange(1, 9)), 10, 10, (8,), photometric=1))
    (count,) = struct.unpack_from("<H", file, 8)
    struct.pack_into("<I", file, 10 + 12 * count, 8)
    return bytes(file)


def values_inside_their_directory(draw: random.Random) -> bytes:
    """A list of bits that lies among the entries, where a reader that rewrites them changes it."""
    return with_tags(_LZW, {258: (3, 3, len(_LZW) + draw.randrange(2, 90))})


def shared_strips(draw: random.Random) -> bytes:
    """A TIFF whose strips are all the same JPEG, which has many scans."""
    last = _SCANS[_SCANS.rindex(b"\xff\xc4") : -2]
    jpeg = _SCANS[:-2] + last * draw.randrange(50, 99) + b"\xff\xd9"
    count, places = 128, 8 + 2 + 12 * 12 + 4
    start = places + 8 * count
    entries = [
        (256, 4, 1, PAGE.width), (257, 4, 1, PAGE.height * count), (258, 3, 1, 8), (259, 3, 1, 7),
        (262, 3, 1, 6), (273, 4, count, places), (277, 3, 1, 3), (278, 4, 1, PAGE.height),
        (279, 4, count, places + 4 * count),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = (b"II*\0\x08\0\0\0" + directory).ljust(places, b"\0")
    return head + struct.pack("<I", start) * count + struct.pack("<I", len(jpeg)) * count + jpeg


def scans_of_a_baseline_jpeg(draw: random.Random) -> bytes:
    """A JPEG that is not progressive, and yet has 10,000 scans or so."""
    scan = _JPEG[_JPEG.rindex(b"\xff\xda") : -2]
    return _JPEG[:-2] + scan[:40] * draw.randrange(101, 15_000) + b"\xff\xd9"


def scans_of_a_progressive_jpeg(draw: random.Random) -> bytes:
    """The last scan again and again."""
    last = _SCANS[_SCANS.rindex(b"\xff\xc4") : -2]
    return _SCANS[:-2] + last * draw.randrange(100, 2_000) + b"\xff\xd9"


def segments_of_a_jpeg(draw: random.Random) -> bytes:
    """Hundreds of thousands of empty comments, applications' segments or restart marks."""
    kind = draw.choice([b"\xff\xfe\0\2", b"\xff\xe3\0\2", b"\xff\xd0", b"\xff\xff"])
    return _JPEG[:2] + kind * draw.randrange(100_000, 500_000) + _JPEG[2:]


def jpeg_of_another_kind(draw: random.Random) -> bytes:
    """12 bits, no height (a DNL segment would give it), hierarchical, lossless, two frames."""
    file, frame = bytearray(_JPEG), _JPEG.index(b"\xff\xc0")
    trick = draw.choice(["bits", "height", "kind", "twice", "sampling", "channels"])
    if trick == "bits":
        file[frame + 4] = 12
    elif trick == "height":
        file[frame + 5 : frame + 7] = b"\0\0"
    elif trick == "kind":
        file[frame + 1] = draw.choice([0xC3, 0xC5, 0xC7, 0xC9, 0xCB, 0xCF])
    elif trick == "twice":
        file[frame:frame] = file[frame : frame + 19]
    elif trick == "sampling":
        file[frame + 11] = draw.randrange(256)
    else:
        file[frame + 9] = draw.randrange(256)
    return bytes(file)


def pictures_behind_a_jpeg(draw: random.Random) -> bytes:
    """An MPO whose index promises thousands of pictures."""
    count = draw.randrange(100, 4_000)
    index = struct.pack("<HHHIIHHII", 2, 0xB001, 4, 1, count, 0xB002, 7, 16 * count, 38)
    content = b"MPF\0II*\0\x08\0\0\0" + index + bytes(4 + 16 * count)
    return _JPEG[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + _JPEG[2:]


def frame_of_a_gif(draw: random.Random) -> bytes:
    """43 bytes or so: a frame of 65,535 x 65,535 that a reader fills while it opens the file."""
    side, screen = draw.randrange(20_000, 65_536), draw.choice([1, 100, 65_535])
    return gif_frame(screen, screen, (0, 0, side, side), disposal=draw.choice([0, 2, 3]))


def blocks_of_a_gif(draw: random.Random) -> bytes:
    """A comment in hundreds of thousands of blocks, or zeros in front of the picture."""
    count = draw.randrange(200_000, 800_000)
    filler = draw.choice([b"!\xfe" + b"\1x" * count + b"\0", b"\0" * count, b"!\xfe\0" * count])
    file = encode(PAGE.quantize(16), "GIF")
    end = 13 + (3 << (file[10] & 7) + 1)
    return file[:end] + filler + file[end:]


def chunks_of_a_png(draw: random.Random) -> bytes:
    """200,000 empty chunks: of pixels, of text, of kinds nobody knows."""
    kind = draw.choice([b"IDAT", b"tEXt", b"quUx", b"fdAT", b"tIME"])
    chunks = png_chunk(kind, b"") * draw.randrange(100_000, 300_000)
    return png_of(_PNG_HEADER, *draw.choice([(chunks, _PNG_PIXELS), (_PNG_PIXELS, chunks)]))


def pixels_that_a_png_lacks(draw: random.Random) -> bytes:
    """A PNG that promises a large picture and has a row of it, or pixels for a far larger one."""
    width, height = draw.randrange(2_000, 6_000), draw.randrange(2_000, 5_000)
    header = struct.pack(
        ">IIBBBBB", width, height, 8, draw.choice([0, 2, 6]), 0, 0, draw.choice([0, 1])
    )
    content = draw.choice([b"", zlib.compress(bytes(9_000)), _BOMB])
    return png_of(header, png_chunk(b"IDAT", content))


def frames_of_a_png(draw: random.Random) -> bytes:
    """An animation whose frames have sizes of their own, or that has no first picture."""
    control = struct.pack(">IIIIIHHBB", 0, draw.randrange(1, 99_999), 64, 0, 0, 1, 1, 0, 0)
    count = struct.pack(">II", draw.choice([0, 2, 2**31]), 0)
    before = png_chunk(b"acTL", count), png_chunk(b"fcTL", control)
    data = png_chunk(b"fdAT", bytes(4) + zlib.compress(bytes(65 * 64)))
    return png_of(
        _PNG_HEADER, *before, *draw.choice([(data,), (_PNG_PIXELS, data), (_PNG_PIXELS,)])
    )


def canvas_of_a_webp(draw: random.Random) -> bytes:
    """A canvas of 16,384 x 16,384 around a small picture, still or moving."""
    moving = draw.choice([True, False])
    options: dict[str, Any] = {"append_images": [PAGE.rotate(180)]} if moving else {}
    alpha = Image.merge("RGBA", (*PAGE.split(), PAGE.getchannel(0)))
    file = bytearray(encode(alpha, "WEBP", save_all=moving, **options))
    assert file[12:16] == b"VP8X"
    for at in (24, 27):
        file[at : at + 3] = struct.pack("<I", draw.randrange(8_000, 16_384))[:3]
    return bytes(file)


def chunks_of_a_webp(draw: random.Random) -> bytes:
    """Hundreds of thousands of empty chunks."""
    file = encode(PAGE, "WEBP", exif=b"Exif\0\0")
    filler = draw.choice([b"EXIF", b"ANMF", b"quux"]) + bytes(4)
    body = file[12:] + filler * draw.randrange(100_000, 300_000)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def runs_of_a_bmp(draw: random.Random) -> bytes:
    """Runs of one pixel, or of none, which Pillow unpacks one by one in Python."""
    width, height = draw.randrange(500, 3_000), draw.randrange(500, 3_000)
    return bmp_in_runs(width, height, draw.choice([b"\1\7", b"\0\2\0\0"]) * width)


def header_of_a_bmp(draw: random.Random) -> bytes:
    """Sizes, offsets and depths at the ends of what their fields hold."""
    file, ends = bytearray(encode(PAGE, "BMP")), [0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    at = draw.choice([10, 14, 18, 22, 30, 34, 46])
    struct.pack_into("<I", file, at, draw.choice(ends))
    return bytes(file)


MAKERS: tuple[Maker, ...] = (
    one_huge_tile, more_strips_than_rows, huge_values_of_tags, directory_of_many_entries,
    directories_in_a_ring, values_inside_their_directory, shared_strips, scans_of_a_baseline_jpeg,
    scans_of_a_progressive_jpeg, segments_of_a_jpeg, jpeg_of_another_kind, pictures_behind_a_jpeg,
    frame_of_a_gif, blocks_of_a_gif, chunks_of_a_png, pixels_that_a_png_lacks, frames_of_a_png,
    canvas_of_a_webp, chunks_of_a_webp, runs_of_a_bmp, header_of_a_bmp,
)  # fmt: skip


# A profile, a text and metadata of over 1 MB: large, unpacking to far more, and not for the eye.
_NOISE = np.random.default_rng(0).bytes(1 << 20)


def laden() -> dict[str, tuple[bytes, bytes]]:
    """Honest pictures with large or explosive metadata, and the same without."""
    grey = samples(1, 8)
    plain = png(grey, 8, 0)
    chunks = {
        "PNG with a profile of 1 MB": (b"iCCP", b"p\0\0" + zlib.compress(_NOISE)),
        "PNG with a profile that explodes": (b"iCCP", b"p\0\0" + _BOMB),
        "PNG with a text of 1 MB": (b"tEXt", b"k\0" + _NOISE.replace(b"\0", b"x")),
        "PNG with a text that explodes": (b"zTXt", b"k\0\0" + _BOMB),
        "PNG with XMP that explodes": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _BOMB),
        "PNG with EXIF that explodes": (b"zTXt", b"Raw profile type exif\0\0" + _BOMB),
        "PNG with XMP that ends too early": (b"iTXt", b"XML:com.adobe.xmp\0"),
        "PNG with EXIF of 1 MB": (b"eXIf", b"II*\0\x08\0\0\0\0\0" + _NOISE),
    }
    made = {name: (png(grey, 8, 0, png_chunk(*chunk)), plain) for name, chunk in chunks.items()}
    for format_, options in {"JPEG": {}, "WEBP": {"lossless": True}, "TIFF": {}}.items():
        loads = {"icc_profile": _NOISE}
        if format_ == "TIFF":
            loads["xmp"] = _NOISE
        without = encode(PAGE, format_, **options)
        made[f"{format_} with metadata of 1 MB"] = (
            encode(PAGE, format_, **options, **loads),
            without,
        )
    return made
