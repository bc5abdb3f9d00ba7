"""The comparison with the plain loop, at its smallest size; times are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.http import TOLERANCE, AnswersDiffer, largest_difference

from checkpoints import build_checkpoint

ROOT = Path(__file__).parents[2]
SERVICES = ("plain loop, JSON", "lean loop, JSON", "pagevec, JSON", "pagevec, npz")
LOADS = [(load, service) for load in ("pages", "texts") for service in SERVICES]
PROBES = [
    (probe, "pagevec")
    for probe in ("a query, nothing else", "a query beside pages", "/health beside pages")
]


@pytest.mark.long
def test_smallest_run(tmp_path: Path) -> None:
    """Both services run, answer the same, and every row has its figures, as text and as JSON."""
    file = tmp_path / "figures.json"
    checkpoint = build_checkpoint("colqwen2_5", tmp_path / "tiny")
    options = ["--pages", "2", "--texts", "8", "--rounds", "1", "--json", str(file)]
    options += ["--model", str(checkpoint)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.http", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    report = json.loads(file.read_text())
    assert 0 <= report["largest_difference"] <= TOLERANCE
    assert report["machine"].keys() == {"cpu", "cores", "ram_gib", "python", "torch"}
    assert report["setup"].keys() == {"model", "pages", "texts", "rounds"}
    assert [(row["load"], row["service"]) for row in report["rows"]] == LOADS + PROBES
    for row in report["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    for row in report["rows"][: len(LOADS)]:
        assert row["ratio"] > 0
        assert len(row["rounds"]) == 1
        assert row["kb_each"] > 1

    lines = done.stdout.splitlines()
    for load, service in LOADS + PROBES:
        assert any(line.startswith(f"| {load} | {service} | ") for line in lines)
    assert f"torch {report['machine']['torch']}" in lines[-1]


@pytest.mark.parametrize("wrong", [1.5 * TOLERANCE, np.nan], ids=["more", "nan"])
def test_different_answers_are_refused(wrong: float) -> None:
    """A single component that is off, or not a number, and nothing is reported."""
    ours, theirs = np.zeros((3, 8), np.float32), np.zeros((3, 8), np.float32)
    assert largest_difference([ours], [theirs]) == 0
    ours[2, 7] = wrong
    with pytest.raises(AnswersDiffer):
        largest_difference([ours], [theirs])


def test_different_shapes_are_refused() -> None:
    """One row too many is a different answer."""
    with pytest.raises(AnswersDiffer):
        largest_difference([np.zeros((3, 8), np.float32)], [np.zeros((2, 8), np.float32)])
