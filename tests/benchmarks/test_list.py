"""`python -m benchmarks` lists what can be measured."""

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import find_benchmarks, main
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]


def test_every_benchmark_is_listed_and_documented() -> None:
    """Each name of the list stands in docs/benchmarks.md with its command."""
    listed = find_benchmarks()
    assert {"http", "engine", "peers", "callers", "retrieval", "plot"} <= set(listed)
    printed = CliRunner().invoke(main).output
    documented = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name, summary in listed.items():
        assert f"{name} " in printed
        assert summary in printed
        if name != "plain_loop":  # a service under test, not a benchmark
            assert f"python -m benchmarks.{name}" in documented


def test_each_can_be_asked_for_help() -> None:
    """`--help` of a benchmark shows its options, `--json` among them."""
    command = [sys.executable, "-m", "benchmarks.retrieval", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Measure whether a model finds the page" in done.stdout
    assert {"--model", "--pages", "--real", "--json"} <= {*done.stdout.split()}
