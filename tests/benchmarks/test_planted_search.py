"""The benchmark of searches measures what it says, on a few pages."""

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.search import run_search


def test_a_small_run(tmp_path: Path) -> None:
    """All figures are there, and a search of few pages, which is exact, finds all planted ones."""
    report = run_search(pages=60, queries=3, folder=tmp_path)
    assert report.recall == 1.0
    assert min(report.insert_pages_per_second, report.open_seconds, report.query_ms) > 0
    assert json.loads(json.dumps(asdict(report)))["pages"] == 60
    assert "| 60 |" in report.markdown()
