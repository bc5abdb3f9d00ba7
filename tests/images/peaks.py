"""A program: decodes pictures of all kinds, and prints what each was expected to hold, and held.

Given a number n, it takes every n-th of them.

Each is decoded in a process of its own, which has given all unused memory back before.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from image_files import bmp_in_runs, encode, png
from pagevec.images import read_image

WIDTH, HEIGHT = 1600, 1500


def pictures() -> dict[str, Image.Image]:
    """Something with content, in every mode."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    colour = Image.fromarray(noise).resize((WIDTH, HEIGHT))
    grey, alpha = colour.convert("L"), Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    bands = colour.split()
    return {
        "1": grey.convert("1"), "L": grey, "LA": Image.merge("LA", (grey, alpha)),
        "P": colour.quantize(64, dither=Image.Dither.NONE), "RGB": colour,
        "RGBA": Image.merge("RGBA", (*bands, alpha)), "CMYK": Image.merge("CMYK", (*bands, alpha)),
        "I;16": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "F": Image.fromarray(np.asarray(grey).astype(np.float32) / 255),
        "YCbCr": colour.convert("YCbCr"), 
        "LAB": Image.frombytes("LAB", colour.size, colour.tobytes()),
    }  # fmt: skip


def files() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield a name, and what makes the file, for each way in which a picture is decoded."""
    by_mode = pictures()
    colour, palette = by_mode["RGB"], by_mode["P"]
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.random.default_rng(0).integers(0, 2**16, (800, 1200, 3))
    quick = {"PNG": {"compress_level": 1}, "WEBP": {"method": 0}}
    modes_of = {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "JPEG": ("L", "RGB", "CMYK"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("L", "P"),
        "BMP": ("1", "L", "P", "RGB"),
        "TIFF": tuple(by_mode),
    }
    for format_, modes in modes_of.items():
        for mode in modes:
            options = quick.get(format_, {})
            yield f"{format_} {mode}", partial(encode, by_mode[mode], format_, **options)
    for mode in modes_of["JPEG"]:
        yield f"JPEG {mode} in scans", partial(encode, by_mode[mode], "JPEG", progressive=True)
    full = partial(encode, colour, "JPEG", progressive=True, subsampling=0)
    yield "JPEG without subsampling", full
    for format_ in ("PNG", "JPEG", "TIFF"):
        yield f"{format_} turned", partial(encode, colour, format_, exif=turned)
    yield "PNG RGB of 16 bits", partial(png, deep, 16, 2)
    yield "PNG transparent", partial(encode, colour, "PNG", transparency=(1, 2, 3))
    yield "PNG P transparent", partial(encode, palette, "PNG", transparency=bytes(range(64)))
    yield "GIF transparent", partial(encode, palette, "GIF", transparency=3)
    yield "WEBP lossless", partial(encode, by_mode["RGBA"], "WEBP", lossless=True, quality=0)
    yield "BMP in runs", partial(bmp_in_runs, 2_794, 1_000, b"\xfe\7" * 11)
    for compression in ("tiff_lzw", "packbits", "zstd", "jpeg"):
        for mode in ("L", "RGB") if compression == "jpeg" else ("L", "RGB", "RGBA", "LAB", "F"):
            make = partial(encode, by_mode[mode], "TIFF", compression=compression)
            yield f"TIFF {compression} {mode}", make
    for compression in ("tiff_lzw", "jpeg"):
        one_strip = {278: HEIGHT}
        make = partial(encode, colour, "TIFF", compression=compression, tiffinfo=one_strip)
        yield f"TIFF {compression} in one strip", make


def measure(decode: Callable[[], Any]) -> int:
    """Return by how many bytes the resident memory grows at most while `decode` runs."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    before = resident("VmRSS")
    decode()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kib) * 1024


def main() -> None:
    read_image(encode(Image.new("RGB", (64, 64)), "WEBP")).decode()  # what is loaded once
    for name, make in islice(files(), 0, None, int(sys.argv[1])):
        data = make()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            continue
        image = read_image(data)
        print(name, image.decode_bytes, measure(image.decode), sep="\t", flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
