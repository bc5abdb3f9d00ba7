"""TIFF directories: of TIFF files, and of the EXIF data inside other formats.

Of a directory only the entries are read, and of the values only those that are asked for, so that
huge values, endless chains and directories that point to themselves cost nothing.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from operator import add

from pagevec.images.containers import limited

# Order of bytes and whether it is BigTIFF, by the first four bytes. Some writers swap the mark;
# Pillow reads that, but no BigTIFF of the order MM.
MARKS = {
    b"II*\0": ("<", False), b"II\0*": ("<", False), b"II+\0": ("<", True),
    b"MM\0*": (">", False), b"MM*\0": (">", False),
}  # fmt: skip
# What one value of a type takes, and how it is unpacked where it is a whole number.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
# Entries of one directory (real ones have some dozens), and bytes of one value that is not a list
# of places (the largest palette has 393,216).
_MOST_ENTRIES, _MOST_VALUE_BYTES = 4_096, 1 << 20
# Strips or tiles, in all planes: as many as the rows of a high picture.
_MOST_UNITS, _SPARE_PLACES = 1 << 19, 64
_MOST_SCANS = 100  # where libtiff stops, too

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIP_OFFSETS, SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 284, 322, 323, 324, 325
SAMPLE_FORMAT, XMP = 339, 700
_SEPARATE = 2
_PLACES = (_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES)
# All that decides on the pixels: the above, the resolution, palette, inks, extra samples, YCbCr,
# and what compressions need (fax options, predictor, tables of JPEG old and new).
_OF_PIXELS = frozenset({
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, 266, SAMPLES, _ROWS_PER_STRIP, *_PLACES,
    282, 283, _PLANAR, 292, 293, 296, 317, 320, _TILE_WIDTH, _TILE_HEIGHT, 332, 338, SAMPLE_FORMAT,
    347, *range(512, 522), *range(529, 533),
})  # fmt: skip


@dataclass(frozen=True)
class Directory:
    """One directory of a file.

    Attributes:
        data: the file.
        order: "<" or ">", as for `struct`.
        is_big: whether it is BigTIFF, with numbers of 64 bits.
        start: where it starts.
        entries: for each tag, where its entry starts.
        next: where the next directory starts; 0 if there is none.
    """

    data: bytes
    order: str
    is_big: bool
    start: int
    entries: dict[int, int]
    next: int

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """Return the whole numbers of a tag, or `default` where it is missing or has none.

        Raises:
            ValueError: they are more bytes than any tag of one picture has.
            struct.error: they lie outside the file.
        """
        if tag not in self.entries:
            return default
        kind, count, start, size = self._value(tag)
        if size > _MOST_VALUE_BYTES:
            raise ValueError(f"the value of tag {tag} has {size:,} bytes")
        if kind not in _WHOLE_NUMBERS or not count:
            return default
        return _unpack(f"{self.order}{count}{_WHOLE_NUMBERS[kind]}", self.data, start)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first whole number of a tag; raises as `numbers` does."""
        return self.numbers(tag, default)[0]

    def bytes_of(self, tag: int, most: int) -> bytes:
        """Return the first bytes of a tag's value, at most so many; none where it is missing."""
        if tag not in self.entries:
            return b""
        _, _, start, size = self._value(tag)
        return self.data[start : start + min(size, most)]

    def count(self, tag: int) -> int:
        """Return how many values a tag has."""
        return self._value(tag)[1] if tag in self.entries else 0

    def places(self, tag: int) -> tuple[int, ...]:
        """Return the whole numbers of a tag, as many as `read_layout` has found plausible."""
        kind, count, start, _ = self._value(tag) if tag in self.entries else (0, 0, 0, 0)
        if kind not in _WHOLE_NUMBERS:
            return ()
        layout = f"{self.order}{count}{_WHOLE_NUMBERS[kind]}"
        return _unpack(layout, self.data, start)

    def alone(self) -> BytesIO:
        """Return the file with this directory alone, and in it only what decides on the pixels.

        It stays where it is: behind the end of a file cut short it would pass for pixels.

        Raises:
            ValueError: the directory has values within itself, which would change.
        """
        each, count, head = (20, "Q", "2sHHHQ") if self.is_big else (12, "H", "2sHI")
        letters = b"II" if self.order == "<" else b"MM"
        marks = (letters, 43, 8, 0, self.start) if self.is_big else (letters, 42, self.start)
        kept = sorted(_OF_PIXELS & self.entries.keys())
        file, view = BytesIO(self.data), memoryview(self.data)
        file.write(struct.pack(self.order + head, *marks))
        file.seek(self.start)
        file.write(struct.pack(self.order + count, len(kept)))
        for tag in kept:
            file.write(view[self.entries[tag] : self.entries[tag] + each])
        file.write(b"\0" * (8 if self.is_big else 4))
        alone = next(directories(file.getvalue()))
        if any(alone.numbers(tag) != self.numbers(tag) for tag in kept if tag not in _PLACES):
            raise ValueError("the directory has values within itself")
        file.seek(0)
        return file

    def check_values(self) -> None:
        """Check that no value that Pillow is to read is larger than that of any picture.

        Raises:
            ValueError: one is.
            struct.error: one lies outside the file.
        """
        for tag in (_OF_PIXELS & self.entries.keys()).difference(_PLACES):
            self.numbers(tag)

    def _value(self, tag: int) -> tuple[int, int, int, int]:
        """Return type and number of a tag's values, where they start, and their bytes."""
        at, inside = self.entries[tag], 8 if self.is_big else 4
        layout = self.order + ("HQ" if self.is_big else "HI")
        kind, count = struct.unpack_from(layout, self.data, at + 2)
        start, size = at + 4 + inside, count * _SIZES[kind]
        if size > inside:
            (start,) = _unpack(self.order + "IQ"[self.is_big], self.data, start)
        return kind, count, start, size


@limited
def directories(data: bytes) -> Iterator[Directory]:
    """Yield the directories of a TIFF file one after the other, each once.

    Raises:
        InvalidImage: there are more than could have pictures.
        ValueError: this is no TIFF, a directory has more entries than any picture has, or the
            file ends within it.
        struct.error: a directory lies outside the file.
    """
    if data[:4] not in MARKS:
        raise ValueError("not a TIFF")
    order, is_big = MARKS[data[:4]]
    (start,) = struct.unpack_from(order + "IQ"[is_big], data, 8 if is_big else 4)
    seen: set[int] = set()
    while start and start not in seen:
        seen.add(start)
        directory = _read_directory(data, order, is_big, start)
        yield directory
        start = directory.next


def find_directory(data: bytes, frame: int) -> Directory:
    """Return the directory of a frame; raises as `directories` does, and where there is none."""
    for directory in islice(directories(data), frame, None):
        return directory
    raise ValueError(f"there are no {frame + 1} pictures")


def _unpack(layout: str, data: bytes, start: int) -> tuple[int, ...]:
    """Read numbers at a place that the file names, of up to 64 bits.

    Raises:
        struct.error: they lie outside the file.
    """
    if start > len(data):  # `struct` takes places of up to 63 bits
        raise struct.error(f"the file ends before byte {start:,}")
    return struct.unpack_from(layout, data, start)


def _read_directory(data: bytes, order: str, is_big: bool, start: int) -> Directory:
    head, each, last = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    (count,) = _unpack(order + head, data, start)
    first = start + struct.calcsize(order + head)
    behind = first + count * each
    if count > _MOST_ENTRIES or behind > len(data):
        raise ValueError(f"a directory of {count:,} entries is damaged, or the file ends too early")
    unpack = struct.Struct(order + "HH").unpack_from
    entries: dict[int, int] = {}
    for at in range(first, behind, each):
        tag, kind = unpack(data, at)
        if kind in _SIZES:
            entries.setdefault(tag, at)
    has_next = behind + struct.calcsize(order + last) <= len(data)  # EXIF often ends before it
    next_ = struct.unpack_from(order + last, data, behind)[0] if has_next else 0
    return Directory(data, order, is_big, start, entries, next_)


@dataclass(frozen=True)
class Layout:
    """How a picture is cut into strips or tiles.

    Attributes:
        unit: pixels of one strip or tile.
        units: how many there are, in all planes.
        area: pixels of all that lie side by side.
    """

    unit: int
    units: int
    area: int


def read_layout(directory: Directory) -> Layout:
    """Return the layout that costs more: readers differ where the tags name two.

    Raises:
        ValueError: a side has no length, or there are too many strips or tiles.
        struct.error: a value lies outside the file.
    """
    width, height = directory.number(WIDTH), directory.number(HEIGHT)
    rows = min(height, directory.number(_ROWS_PER_STRIP) or height)
    tile = directory.number(_TILE_WIDTH, width), directory.number(_TILE_HEIGHT, rows)
    if not all((width, height, *tile)):
        raise ValueError("a side has no length")
    planes = directory.number(SAMPLES, 1) if directory.number(_PLANAR) == _SEPARATE else 1
    # The last strip is only as high as the picture, the last tile as high as all others.
    strips, tiles = (
        math.ceil(height / rows),
        math.ceil(width / tile[0]) * math.ceil(height / tile[1]),
    )
    layouts = (
        Layout(width * rows, strips * planes, width * height),
        Layout(math.prod(tile), tiles * planes, tiles * math.prod(tile)),
    )
    is_tiled = {_TILE_WIDTH, _TILE_HEIGHT} & directory.entries.keys()
    units = max(strips, tiles if is_tiled else 0) * planes
    most = 2 * units + _SPARE_PLACES
    if units > _MOST_UNITS or any(directory.count(tag) > most for tag in _PLACES):
        raise ValueError("there are more strips or tiles than the picture needs")
    return max(layouts, key=lambda layout: layout.area) if is_tiled else layouts[0]


def count_scans(directory: Directory, layout: Layout) -> int:
    """Return how often JPEG inside a TIFF passes over the picture, at most."""
    starts, sizes = (
        directory.places(strips) + directory.places(tiles)
        for strips, tiles in ((_STRIP_OFFSETS, _TILE_OFFSETS), (_STRIP_BYTES, _TILE_BYTES))
    )
    if not sizes or len(sizes) != len(starts):
        return _MOST_SCANS
    first, last = min(starts), max(map(add, starts, sizes))
    scans = directory.data.count(b"\xff\xda", first, last)
    is_shared = sum(sizes) > last - first  # then one may be decoded again and again
    return max(1, min(_MOST_SCANS, scans if is_shared else math.ceil(scans / layout.units)))
