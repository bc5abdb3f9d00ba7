"""The service under load, at its smallest size; times are not judged here."""

import json
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import pytest
from benchmarks.services import Service as Running
from click.testing import CliRunner

from benchmarks import callers, services
from conftest import Service


def test_smallest_run(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of callers has its figures in both formats; npz is the smaller one."""
    running = nullcontext(Running(service.url, service.key))
    monkeypatch.setattr(callers, "serve_pagevec", lambda *_: running)
    monkeypatch.setattr(callers, "_EACH", 1)
    monkeypatch.setattr(services, "_LEAST_SECONDS", 0.0)
    file = tmp_path / "callers.json"
    options = ["--most", "2", "--requests", "1", "--json", str(file)]
    done = CliRunner().invoke(callers.main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output

    report = json.loads(file.read_text())
    assert report["measured"] == "callers"
    assert report["setup"]["device"] == "cpu"
    lines = {(one["format"], one["load"], one["callers"]): one for one in report["lines"]}
    assert list(lines) == list(product(("npz", "json"), ("pages", "texts"), (1, 2)))
    for (form, name, count), line in lines.items():
        assert line["requests"] >= count
        assert 0 < line["p50_ms"] <= line["p95_ms"] <= line["p99_ms"]
        assert line["inputs_per_second"] > 0
        assert f"| {name} | {form} | {count} |" in done.output
    for name, count in product(("pages", "texts"), (1, 2)):
        sizes = [lines[form, name, count]["kb_each"] for form in ("npz", "json")]
        assert 1 < sizes[0] < sizes[1]


def test_a_service_that_does_not_start_is_reported() -> None:
    """The error holds the end of the service's log, not a traceback."""
    done = CliRunner().invoke(callers.main, ["--device", "abacus"])
    assert done.exit_code == 1
    assert "did not start" in done.output
    assert "PAGEVEC_DEVICE" in done.output
