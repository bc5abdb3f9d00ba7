"""Pictures that cost more than their size says: refused or decoded, in bounded time and memory."""

import base64
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hostile.odd_pictures import MAKERS, Maker, laden
from hostile.target import attacked
from images.pages import HARMLESS_WARNINGS
from pagevec.client.images import image_file
from pagevec.errors import DocumentError, ImageTooLarge, InvalidImage, PagevecError
from pagevec.grid import PageResizing
from pagevec.images import read_image
from pagevec.ingest.boundary import open_document
from processes import MIB
from server.calls import images

pytestmark = [pytest.mark.long, *HARMLESS_WARNINGS]

_TESTS = Path(__file__).parents[1]
_LADEN = laden()
_DRAWN = 12  # pictures of each kind


@pytest.mark.alone
def test_time_and_memory(tmp_path: Path) -> None:
    """Each is refused or decoded within 2 s, and holds no more than its header announced."""
    draw = random.SystemRandom()
    for maker in MAKERS:
        for number in range(_DRAWN):
            (tmp_path / f"{maker.__name__}-{number}").write_bytes(maker(draw))
    done = subprocess.run(
        [sys.executable, _TESTS / "hostile" / "decode_pictures.py", tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60 + 20 * _DRAWN,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == _DRAWN * len(MAKERS)
    wrong = []
    for name, became, seconds, held, announced in lines:
        # What is refused by its header alone holds nothing but the file.
        allowed = int(announced) or 16 * MIB
        if float(seconds) > 2 or int(held) > allowed + 16 * MIB:
            wrong.append(f"{name} took {seconds} s, {int(held) / MIB:.0f} MiB: {became}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_no_other_error(maker: Maker) -> None:
    """A caller is told what is wrong with the image, whatever it is, or gets its pixels."""
    try:
        image = read_image(maker(random.SystemRandom()))
        assert image.decode().size == (image.width, image.height)
    except (InvalidImage, ImageTooLarge) as error:
        assert len(str(error)) > 40


@pytest.mark.alone
@pytest.mark.parametrize("name", _LADEN)
def test_metadata_is_no_reason_to_refuse(name: str) -> None:
    """Profiles and texts of 1 MB, or that unpack to 100 MB, change neither pixels nor time."""
    with_it, without = _LADEN[name]
    started = time.process_time()
    image = read_image(with_it)
    shown = np.asarray(image.decode())
    assert time.process_time() - started < 1
    assert image.orientation == 1
    assert (shown == np.asarray(read_image(without).decode())).all()


@pytest.mark.alone
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_headers_of_a_whole_request(maker: Maker) -> None:
    """Headers of 64 MB in up to 256 images take less than a second; other threads go on."""
    draw, files, size = random.SystemRandom(), [], 0
    while len(files) < 256 and size < 64_000_000:
        files.append(maker(draw) if len(files) < 4 else files[len(files) % 4])
        size += len(files[-1])
    gaps, ended = [0.0], threading.Event()

    def tick() -> None:
        before = time.perf_counter()
        while not ended.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - before)
            before = now

    ticking = threading.Thread(target=tick)
    ticking.start()
    started = time.thread_time()
    for file in files:
        with suppress(PagevecError):
            read_image(file)
    seconds = time.thread_time() - started
    ended.set()
    ticking.join()
    assert seconds < 1
    assert max(gaps) < 0.5


@pytest.mark.alone
def test_a_service_that_is_sent_them(tmp_path: Path) -> None:
    """Over HTTP each has a documented status, and the service stays well."""
    draw = random.SystemRandom()
    with attacked(tmp_path) as target, target.client() as client:
        for maker in MAKERS:
            body = images(base64.b64encode(maker(draw)).decode())
            answer = client.post("/embeddings", json=body)
            assert answer.status_code in (200, 400, 413), (maker.__name__, answer.text)
            if answer.status_code != 200:
                assert answer.json()["index"] == 0
        target.check_alive(budget=1024 * MIB)


_EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 40
%%EndComments
newpath 0 0 moveto 40 40 lineto stroke
%%EOF
"""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".jp2", ".avif", ".eps"])
def test_ghostscript_is_never_started(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PostScript file is no picture, whatever it is called: no interpreter is asked."""
    started, programs = tmp_path / "started", tmp_path / "programs"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    file = tmp_path / f"drawing{suffix}"
    file.write_bytes(_EPS)

    # The trap works: Pillow by itself would start it.
    careless = "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"
    subprocess.run([sys.executable, "-c", careless, file], capture_output=True, check=False)
    assert started.exists()
    started.unlink()

    with pytest.raises(DocumentError), open_document(file) as pages:
        pages.make(1)
    with pytest.raises(InvalidImage):
        read_image(_EPS)
    assert image_file(file, PageResizing(28, 3_136, 9_000, first=0, max_ratio=200)) == _EPS
    assert not started.exists()
