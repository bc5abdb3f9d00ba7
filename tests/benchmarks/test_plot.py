"""JSON files of the other benchmarks become pictures; the figures here are made up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from benchmarks.plot import main
from click.testing import CliRunner, Result

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
MEASURED_ON = {
    "machine": {"cpu": "a processor", "cores": 2},
    "setup": {"model": "bundled", "device": "cpu"},
}
ENGINE: dict[str, Any] = {
    "measured": "engine",
    **MEASURED_ON,
    "sizes": [{"tokens": n, "page_ms": n} for n in (1500, 100, 700, 11)],
    "batches": [{"pages": n, "pages_per_second": 3.0} for n in (1, 2, 4, 8, 16)],
    "growth": [
        {"pages": n, "pages_per_second": 50.0, "memory_mib": 700.0} for n in (10, 100, 1000)
    ],
}
CALLERS: dict[str, Any] = {
    "measured": "callers",
    **MEASURED_ON,
    "lines": [
        {"load": load, "format": form, "callers": callers, "p50_ms": 100 * callers, "p95_ms": 200}
        for form in ("npz", "json")
        for load in ("pages", "texts")
        for callers in (1, 2, 4, 8)
    ],
}

MILLION: dict[str, Any] = {
    "measured": "million",
    **MEASURED_ON,
    "sizes": [
        {"pages": n, "query_ms": n / 1e3, "slowest_ms": n, "memory_mib": 300.0, "disk_mib": n}
        for n in (20_000, 100_000, 1_000_000)
    ],
}


def plot(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def write(figures: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(figures))


def labels_of(picture: Path) -> list[str]:
    return [text.text or "" for text in ElementTree.parse(picture).iter(f"{SVG}text")]  # noqa: S314


def points_of(picture: Path) -> dict[str, int]:
    """Return the number of marks of each line."""
    groups = ElementTree.parse(picture).iter(f"{SVG}g")  # noqa: S314
    lines = {group.get("id", ""): group for group in groups}
    return {
        name.removeprefix("line-"): len(list(group.iter(f"{SVG}use")))
        for name, group in lines.items()
        if name.startswith("line-")
    }


@pytest.fixture
def engine_file(tmp_path: Path) -> Path:
    file = tmp_path / "engine.json"
    write(ENGINE, file)
    return file


def test_engine(engine_file: Path, tmp_path: Path) -> None:
    """Batches, sizes and growth have a picture each, with a mark for every figure."""
    done = plot(engine_file, "--to", tmp_path / "new" / "plots")
    assert done.exit_code == 0, done.output
    batch, tokens, growth = map(Path, done.output.split())
    assert batch == tmp_path / "new" / "plots" / "engine-pages-by-batch.svg"
    assert points_of(batch) == {"1-1": 5}
    assert {"pages in a forward pass", "pages/s", "1", "2", "4", "8", "16"} <= {*labels_of(batch)}
    assert points_of(tokens) == {"1-1": 4, "1-2": 0}  # the guide is no measurement
    assert {"tokens of a page", "ms a page", "proportional"} <= {*labels_of(tokens)}
    assert points_of(growth) == {"1-1": 3, "1-2": 0, "1-3": 0, "2-1": 3, "2-2": 0, "2-3": 0}
    assert {"pages", "pages/s", "memory, MiB", "10", "100", "1,000"} <= {*labels_of(growth)}
    for picture in (batch, tokens, growth):
        assert "bundled on cpu (a processor, 2 cores)" in labels_of(picture)


def test_stores_by_size(tmp_path: Path) -> None:
    """Time and space have a line for each of their figures, with a mark for each size."""
    write(MILLION, tmp_path / "million.json")
    done = plot(tmp_path / "million.json", "--to", tmp_path)
    assert done.exit_code == 0, done.output
    [picture] = map(Path, done.output.split())
    assert picture == tmp_path / "million-by-pages.svg"
    assert points_of(picture) == {"1-1": 3, "1-2": 3, "2-1": 3, "2-2": 3}
    assert {"20,000", "1,000,000", "ms a query", "slowest", "disk"} <= {*labels_of(picture)}


def test_without_growth(tmp_path: Path) -> None:
    """What was not measured is not drawn."""
    short = {name: rows for name, rows in ENGINE.items() if name != "growth"}
    write(short, tmp_path / "short.json")
    done = plot(tmp_path / "short.json", "--to", tmp_path)
    names = [Path(line).name for line in done.output.split()]
    assert names == ["short-pages-by-batch.svg", "short-page-time-by-tokens.svg"]


def test_callers(tmp_path: Path) -> None:
    """Pages and texts stand side by side, each with p50 and p95 of both formats."""
    write(CALLERS, tmp_path / "callers.json")
    done = plot(tmp_path / "callers.json", "--to", tmp_path)
    picture = Path(done.output.strip())
    assert points_of(picture) == {f"{panel}-{line}": 4 for panel in (1, 2) for line in range(1, 5)}
    labels = labels_of(picture)
    for label in ("npz, p50", "npz, p95", "JSON, p50", "JSON, p95", "callers at once"):
        assert labels.count(label) == 2
    assert {"pages", "texts", "ms a request"} <= {*labels}


def test_the_same_figures_give_the_same_bytes(engine_file: Path, tmp_path: Path) -> None:
    """Drawn again, in this process or in another one, a picture has the same bytes."""
    once, again = tmp_path / "once", tmp_path / "again"
    plot(engine_file, "--to", once)
    command = [sys.executable, "-m", "benchmarks.plot", str(engine_file), "--to", str(again)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    pictures = sorted(once.iterdir())
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.read_bytes() == (again / picture.name).read_bytes()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '{"measured": "cold"}',
            "figures of `cold`; those of engine, callers, million can be drawn",
        ),
        ('{"machine": {}}', "no figures of a benchmark"),
        ("[1, 2]", "no figures of a benchmark"),
        ("pages/s", "not JSON"),
        (json.dumps({**ENGINE, "batches": 3}), "batches"),
        ('{"measured": "callers"}', "machine is missing; measure again"),
    ],
)
def test_another_file_is_refused_by_name(text: str, complaint: str, tmp_path: Path) -> None:
    """The error says which file it is, and what is wrong with it; nothing is drawn."""
    file = tmp_path / "other.json"
    file.write_text(text)
    done = plot(file, "--to", tmp_path / "plots")
    assert done.exit_code == 1
    assert "other.json" in done.output
    assert complaint in done.output
    assert not (tmp_path / "plots").exists()


def test_without_matplotlib(
    engine_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without matplotlib the error says how to install it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = plot(engine_file, "--to", tmp_path)
    assert done.exit_code == 1
    assert "pip install 'pagevec[serve,pdf,bench]'" in done.output
