"""Read the headers of picture files, and with them what decoding costs, before a decoder runs.

Each format has a reader of its own here, whose time is bounded by the size of the file, and which
unpacks and allocates nothing that the file promises.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import replace

from pagevec.errors import InvalidImage
from pagevec.images import costs, tiff
from pagevec.images.containers import (
    GIF_PICTURE,
    JPEG_EXIF,
    JPEG_SCAN,
    gif_blocks,
    jpeg_segments,
    png_chunks,
    riff_chunks,
)
from pagevec.images.costs import Header, bytes_per_pixel
from pagevec.images.orientation import (
    MOST_TEXT,
    exif_in_text,
    exif_orientation,
    find_orientation,
    xmp_in_text,
)

_MOST_SCANS = 100  # usual are 1 to 12
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _ARITHMETIC = (0xC2, 0xCA), (0xC9, 0xCA)
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_TEXT = re.compile(rb"(?:Raw profile type exif|XML:com\.adobe\.xmp)\0")
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_BMP_OLD, _BMP_NEW, _BMP_RUNS, _BMP_MASKS = 12, (40, 52, 56, 64, 108, 124), (1, 2), 3
_JPEG, _PALETTE, _YCBCR, _LAB = 7, 3, 6, 8


def find_format(data: bytes) -> str | None:
    """Return the format of a file by its first bytes; None if it is none of those read here."""
    if data[:4] in tiff.MARKS:
        return "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)


def read_header(data: bytes, frame: int = 0) -> Header:
    """Read the header of a picture file.

    Args:
        data: the file.
        frame: which picture of a TIFF; all other files are read as their first.

    Raises:
        InvalidImage: the file has more parts than a picture needs, or is of a kind that no
            decoder reads.
        Exception: ValueError, IndexError or struct.error: it is damaged, or of no format that is
            read here.
    """
    format_ = find_format(data)
    if format_ is None:
        raise ValueError("none of the formats that are read")
    header = _read_tiff(data, frame) if format_ == "TIFF" else _READERS[format_](data)
    if min(header.width, header.height) < 1:
        raise ValueError("a side has no length")
    turning = costs.RGB * header.width * header.height if header.orientation != 1 else 0
    return replace(
        header,
        work=header.work + len(data) // costs.BYTES_OF_WORK,
        memory=header.memory + turning + len(data) + costs.BYTES_AT_LEAST,
    )


def count_frames(data: bytes) -> int:
    """Return how many pictures a file has: those of a TIFF, else one; raises as `read_header`."""
    return sum(1 for _ in tiff.directories(data)) if find_format(data) == "TIFF" else 1


def _read_png(data: bytes) -> Header:
    length, kind, width, height, depth, colour, _, _, interlaced = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    if (length, kind) != (13, b"IHDR"):
        raise ValueError("the first chunk is not the header")
    exif, profile, xmp, has_pixels, has_alpha = b"", b"", b"", False, colour in (4, 6)
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            has_pixels = True
        elif kind == b"tRNS":
            has_alpha = True
        elif kind == b"eXIf":  # often behind the pixels
            exif = data[start:end]
        elif kind in _PNG_TEXTS and not has_pixels and (key := _PNG_TEXT.match(data, start)):
            content = data[key.end() : min(end, key.end() + MOST_TEXT)]
            if key[0].startswith(b"Raw"):
                profile = exif_in_text(content, is_packed=kind == b"zTXt")
            else:
                xmp = xmp_in_text(content)
    if not has_pixels:
        raise ValueError("there are no pixels")
    area, stored = (
        width * height,
        costs.RGB if colour in (2, 4, 6) else costs.WIDE_GREY if depth == 16 else 1,
    )
    return Header(
        "PNG",
        width,
        height,
        area,
        work=area * (2 if interlaced else 1) * (2 if has_alpha else 1),
        memory=area * bytes_per_pixel(stored, has_alpha),
        held=stored,
        orientation=find_orientation(exif_orientation(exif or profile), xmp),
    )


def _read_jpeg(data: bytes) -> Header:
    frame, exif, xmp, scans = b"", b"", b"", 0
    for kind, start, end in jpeg_segments(data):
        if kind == JPEG_SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise InvalidImage(
                    f"the JPEG image has more than {_MOST_SCANS} scans; save it as a baseline JPEG"
                )
        elif kind[0] in _JPEG_FRAMES:
            if frame:
                raise ValueError("there are two frames")
            frame = kind + data[start:end]
        elif data.startswith(JPEG_EXIF, start):
            exif = exif or data[start:end]
        elif data.startswith(_JPEG_XMP, start):
            xmp = data[start:end]
    if not (frame and scans):
        raise ValueError("there is no picture")
    process, depth, height, width, channels = struct.unpack_from(">BBHHB", frame)
    if depth != 8 or channels not in (1, 3, 4):
        raise InvalidImage(
            f"the JPEG image has {channels} samples of {depth} bits, but 1, 3 or 4 of 8 bits are "
            "read; save it so"
        )
    steps = [divmod(frame[8 + 3 * channel], 16) for channel in range(channels)]
    across, down = (max(sides) for sides in zip(*steps, strict=True))
    if not all(min(step) > 0 and max(step) <= 4 for step in steps):
        raise ValueError("no such sampling")
    # Blocks of 8 x 8 samples, and coefficients of 2 bytes that are kept for further scans.
    sides = (width, 8 * across), (height, 8 * down)
    area = math.prod(-(-side // step) * step for side, step in sides)
    coefficients = math.ceil(2 * sum(map(math.prod, steps)) / (across * down))
    in_scans = scans > 1 or process in _PROGRESSIVE
    each = costs.RGB * 3 if channels == 4 else costs.RGB + 3
    return Header(
        "JPEG",
        width,
        height,
        area=width * height,
        work=area
        * (1 + costs.WORK_OF_SCAN * (scans - 1))
        * (costs.WORK_OF_ARITHMETIC if process in _ARITHMETIC else 1),
        memory=area * (each + (coefficients if in_scans else 0)),
        held=costs.HELD_OF_JPEG_IN_SCANS if in_scans else costs.HELD_OF_JPEG,
        orientation=find_orientation(exif_orientation(exif), xmp),
    )


def _read_gif(data: bytes) -> Header:
    """A first frame that reaches beyond the screen enlarges it, as Pillow has it."""
    screen = struct.unpack_from("<HH", data, 6)
    [start] = [start for kind, start, _ in gif_blocks(data) if kind == GIF_PICTURE]
    left, top, across, down = struct.unpack_from("<HHHH", data, start)
    width, height = max(screen[0], left + across), max(screen[1], top + down)
    area = width * height
    is_smaller = (across, down) != (width, height)
    each = bytes_per_pixel(1, transparent=True) + (costs.RGB + 1 if is_smaller else 0)
    return Header("GIF", width, height, area, work=2 * area, memory=area * each, held=1)


def _read_webp(data: bytes) -> Header:
    """The canvas is what is allocated; libwebp refuses a picture or frame that exceeds it."""
    size, exif, xmp = None, b"", b""
    for kind, start, end in riff_chunks(data):
        size = size or _webp_size(data, kind, start)
        if kind == b"EXIF":
            exif = data[start:end]
        elif kind == b"XMP ":
            xmp = data[start : min(end, start + MOST_TEXT)]
    if size is None:
        raise ValueError("there is no picture")
    area = size[0] * size[1]
    return Header(
        "WEBP",
        *size,
        area,
        work=costs.WORK_OF_WEBP * area,
        memory=costs.BYTES_OF_WEBP * area,
        held=costs.HELD_OF_WEBP,
        orientation=find_orientation(exif_orientation(exif), xmp),
    )


def _webp_size(data: bytes, kind: bytes, start: int) -> tuple[int, int] | None:
    if kind == b"VP8X":
        across, down = data[start + 4 : start + 7], data[start + 7 : start + 10]
        return 1 + int.from_bytes(across, "little"), 1 + int.from_bytes(down, "little")
    if kind == b"VP8 ":
        across, down = struct.unpack_from("<HH", data, start + 6)
        return across & 0x3FFF, down & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, start + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _read_bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == _BMP_OLD:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif size in _BMP_NEW:
        width, height, _, bits, compression = struct.unpack_from("<IiHHI", data, 18)
    else:
        raise ValueError(f"a header of {size:,} bytes is unknown")
    area, has_runs = width * abs(height), compression in _BMP_RUNS
    stored = costs.RGB if bits > 8 else 1
    each = bytes_per_pixel(stored, transparent=bits == 32 and compression == _BMP_MASKS)
    return Header(
        "BMP",
        width,
        abs(height),
        area,
        work=costs.WORK_IN_RUNS * area + costs.WORK_OF_RUN_BYTE * len(data) if has_runs else area,
        memory=area * (each + (costs.BYTES_IN_RUNS if has_runs else 0)),
        held=stored,
    )


def _read_tiff(data: bytes, frame: int) -> Header:
    directory = tiff.find_directory(data, frame)
    directory.check_values()
    layout = tiff.read_layout(directory)
    compression = directory.number(tiff.COMPRESSION, 1)
    photometric = directory.number(tiff.PHOTOMETRIC)
    samples, bits = directory.number(tiff.SAMPLES, 1), max(directory.numbers(tiff.BITS, 1))
    stored = costs.RGB if samples > 1 or bits > 16 else 1 if bits <= 8 else costs.WIDE_GREY
    each = bytes_per_pixel(stored, samples in (2, 4, 5, 6))
    each += costs.RGB if photometric > _PALETTE else 2 if samples == 1 and bits > 8 else 0
    # What libtiff unpacks at a time: as stored, or as RGBA; JPEG keeps coefficients besides.
    unit = max(costs.RGB, samples * bits // 8)
    unit += costs.BYTES_OF_JPEG_IN_TIFF if photometric == _YCBCR else 0
    passes = tiff.count_scans(directory, layout) if compression == _JPEG else 1
    work = costs.WORK_OF_TIFF.get(compression, costs.WORK_OF_RARE_TIFF) * passes
    work += costs.WORK_OF_LAB if photometric == _LAB else 0
    width, height = directory.number(tiff.WIDTH), directory.number(tiff.HEIGHT)
    return Header(
        "TIFF",
        width,
        height,
        layout.area,
        work=layout.area * work + costs.WORK_OF_UNIT * layout.units,
        memory=width * height * each + layout.unit * unit + costs.BYTES_OF_UNIT * layout.units,
        held=stored,
        orientation=find_orientation(
            directory.number(tiff.ORIENTATION), directory.bytes_of(tiff.XMP, MOST_TEXT)
        ),
    )


_MARKS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
}
_READERS: dict[str, Callable[[bytes], Header]] = {
    "BMP": _read_bmp,
    "GIF": _read_gif,
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WEBP": _read_webp,
}
