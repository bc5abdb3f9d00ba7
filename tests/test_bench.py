"""`pagevec bench` against a real service: its table, its JSON, its bounds and its errors."""

import json
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from conftest import Service, pagevec
from pagevec.bench import PageMaker

PHASES = ["queries alone", "texts", "pages", "queries beside pages"]
SMALL = ("--size", "56x84", "--callers", "2")


def test_table(service: Service) -> None:
    """The table has a line for each phase and ends with the command that prices the pages."""
    done = pagevec("bench", service.url, "--key", service.key, "--seconds", "0.5", *SMALL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "on cpu in float32; 2 callers" in lines[0]
    for phase in PHASES:
        [line] = [line for line in lines if line.startswith(f"{phase}  ")]
        figures = [float(cell) for cell in line.removeprefix(phase).split()]
        assert len(figures) == (4 if "queries" in phase else 5)
        assert 0 < figures[-3] <= figures[-2] <= figures[-1]
    command, option, price = lines[-1].split(maxsplit=3)[1:]
    assert (command, option) == ("cost", "--pages-per-second")
    assert pagevec(command, option, price).returncode == 0


def test_json_and_requests(service: Service) -> None:
    """With --json stdout is JSON alone; no phase sends more requests than --requests allows."""
    options = ("--requests", "5", "--json", *SMALL)
    done = pagevec("bench", service.url, *options, SERVICE_API_KEY=service.key)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    phases = {phase["name"]: phase for phase in figures["phases"]}
    assert list(phases) == PHASES
    assert phases["pages"]["requests"] == phases["pages"]["inputs"] == 5
    assert phases["texts"]["inputs"] == 5 * 16
    assert all(1 <= phase["requests"] <= 5 for phase in phases.values())
    for name in ("pages", "texts"):
        phase = phases[name]
        rate = phase["inputs"] / phase["seconds"]
        assert figures[f"{name}_per_second"] == phase["inputs_per_second"] == pytest.approx(rate)


def test_time_is_bounded(service: Service) -> None:
    """Four phases of a second end after little more than four seconds, whatever --requests is."""
    started = time.monotonic()
    options = ("--seconds", "1", "--requests", "1000000", "--json", *SMALL)
    done = pagevec("bench", service.url, *options, SERVICE_API_KEY=service.key)
    assert done.returncode == 0, done.stderr
    assert all(1 <= phase["seconds"] < 10 for phase in json.loads(done.stdout)["phases"])
    assert time.monotonic() - started < 40


def test_no_service_there() -> None:
    """An address without a service is an error that names it."""
    done = pagevec("bench", "http://127.0.0.1:9", "--key", "any")
    assert done.returncode == 3
    assert "http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_key(service: Service) -> None:
    """A wrong key is an error in the service's own words; nothing was measured."""
    done = pagevec("bench", service.url, "--key", "wrong", "--json")
    assert done.returncode == 2
    assert "key" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("size", ["1240", "0x10", "axb", "100000x100000"])
def test_wrong_size(size: str) -> None:
    """A size that is none is refused with an example of one."""
    done = pagevec("bench", "http://127.0.0.1:9", "--key", "any", "--size", size)
    assert done.returncode == 2
    assert "--size" in done.stderr
    assert "1240x1754" in done.stderr


@pytest.mark.parametrize("size", [(1240, 1754), (30, 10)])
def test_pages_differ(size: tuple[int, int]) -> None:
    """Pages are complete RGB PNG files of the given size, and no two have the same pixels."""
    make_page = PageMaker(*size)
    pages = [Image.open(BytesIO(make_page())) for _ in range(5)]
    assert {(page.format, page.mode, page.size) for page in pages} == {("PNG", "RGB", size)}
    pixels = [np.asarray(page) for page in pages]
    assert len({one.tobytes() for one in pixels}) == 5
    if min(size) > 1000:  # a page of a few blocks may be all print
        assert 0.1 < np.mean([one == 255 for one in pixels]) < 0.95
