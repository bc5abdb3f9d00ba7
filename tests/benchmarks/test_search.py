"""The benchmark of the store in a folder, on a few pages."""

import json
from pathlib import Path

from benchmarks.search import measure_store


def test_a_small_run(tmp_path: Path) -> None:
    """All figures are there, and a search of few pages, which is exact, finds all planted ones."""
    report = measure_store(tmp_path, pages=60, queries=3)
    [row] = json.loads(json.dumps(report.as_json()))["rows"]
    assert row["recall"] == 1.0
    assert min(row["insert_pages_per_second"], row["open_seconds"], row["query_ms"]) > 0
    assert row["pages"] == 60
    assert "| 60 |" in report.markdown()
