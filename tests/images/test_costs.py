"""What a header says of the cost of decoding, against what decoding takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image_files import bmp_in_runs, encode, png
from images.pages import FILES, HARMLESS_WARNINGS, PAGE, samples
from pagevec.images import read_image

pytestmark = HARMLESS_WARNINGS

_MIB = 1 << 20


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_decode_bytes_against_the_measured_peak(step: int) -> None:
    """In all formats and modes decoding holds no more than it says, and no less than a third."""
    program = Path(__file__).with_name("peaks.py")
    paths = os.pathsep.join([str(program.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, program, str(step)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) > 50 / step
    wrong = [
        f"{name}: {int(said) / _MIB:.1f} MiB said, {int(held) / _MIB:.1f} held"
        for name, said, held in lines
        if not int(held) <= int(said) <= 3 * int(held) + 6 * _MIB
    ]
    assert not wrong, "\n".join(wrong)


def test_work_grows_with_what_decoding_passes_over() -> None:
    """Scans, interlacing, alpha, runs and strips are work beyond that of the same pixels."""
    plain = read_image(FILES["jpeg"]).decode_pixels
    assert read_image(FILES["jpeg-progressive"]).decode_pixels > 3 * plain
    assert plain == pytest.approx(PAGE.width * PAGE.height, rel=0.4)

    colours, transparent = samples(3, 8), samples(4, 8)
    straight = read_image(png(colours, 8, 2)).decode_pixels
    assert read_image(png(colours, 8, 2, interlaced=True)).decode_pixels > straight
    assert read_image(png(transparent, 8, 6)).decode_pixels > straight

    whole = read_image(encode(PAGE, "TIFF", tiffinfo={278: PAGE.height})).decode_pixels
    assert read_image(encode(PAGE, "TIFF", tiffinfo={278: 1})).decode_pixels > 5 * whole

    long, short = (bmp_in_runs(200, 100, runs) for runs in (b"\xc8\7", b"\1\7" * 200))
    assert read_image(short).decode_pixels > read_image(long).decode_pixels > 200 * 100
