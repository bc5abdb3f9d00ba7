"""What decoding a picture costs: work and memory, known from its header alone.

Work is counted in pixels of a plain PNG or JPEG picture, memory in bytes at the peak. The numbers
are measured, and rounded up (tests/images/test_costs.py).
"""

from dataclasses import dataclass

# What takes more work than a pixel of a plain picture takes.
WORK_OF_SCAN = 0.5  # a pixel in each scan of a JPEG after the first
WORK_OF_ARITHMETIC, WORK_OF_WEBP = 4, 6
WORK_OF_RUN_BYTE, WORK_IN_RUNS = 60, 16  # Pillow unpacks the runs of a BMP in Python
WORK_OF_TIFF = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 7: 2, 8: 1, 32773: 1, 32946: 1}  # by compression
WORK_OF_RARE_TIFF, WORK_OF_LAB = 6, 6
WORK_OF_UNIT = 1_000  # a strip or tile
BYTES_OF_WORK = 2  # of the file, read along the way

# Bytes of a pixel: as Pillow stores it, and for laying it over white, as numpy has it, and so on.
# What a step has freed counts, too: the allocator may keep it.
WIDE_GREY, RGB, OVER_WHITE = 2, 4, 9
BYTES_OF_WEBP, BYTES_IN_RUNS, BYTES_OF_JPEG_IN_TIFF = 26, 4, 8
BYTES_OF_UNIT, BYTES_AT_LEAST = 1_000, 6 << 20
# The same where the picture is reduced while it is decoded, or right behind that.
HELD_OF_JPEG, HELD_OF_JPEG_IN_SCANS, HELD_OF_WEBP = 1, 6, 16


@dataclass(frozen=True)
class Header:
    """What the header of a picture file says.

    Attributes:
        format: PNG, JPEG, WEBP, GIF, TIFF or BMP.
        width: in pixels, as stored.
        height: in pixels, as stored.
        area: pixels of the largest surface that decoding fills; the tiles of a TIFF count as one.
        work: of decoding, in pixels of a plain picture.
        memory: bytes that decoding holds at its peak, at most.
        held: bytes of each pixel that decoding holds even where the picture is reduced on the way.
        orientation: the EXIF number (1-8) of how the pixels are stored.
    """

    format: str
    width: int
    height: int
    area: int
    work: int
    memory: int
    held: int
    orientation: int = 1


def bytes_per_pixel(stored: int, transparent: bool) -> int:
    """Return the bytes of a pixel at the peak, given those in which Pillow stores it."""
    if transparent:
        return stored + OVER_WHITE
    return stored + (RGB if stored < RGB else 0) + (1 if stored == WIDE_GREY else 0)
