"""Commands whose `--store` is a service: the output and exit codes of a store here."""

import json
from pathlib import Path

import pytest

from conftest import EXAMPLES, Service
from conftest import pagevec as run

QUERY = "a ferry learns to be quiet"
REPORT = "uploads/examples/annual-report.pdf"


@pytest.mark.long
def test_on_the_command_line(there: Service, tmp_path: Path) -> None:
    """`--store http://...` of four commands prints what a store here does; no service embeds."""
    key, at = {"SERVICE_API_KEY": there.key, "PAGEVEC_URL": "http://127.0.0.1:9"}, there.url
    done = run("ingest", EXAMPLES, "--store", at, cwd=tmp_path, **key)
    assert (done.returncode, done.stdout) == (0, "8 pages stored; 0 documents were there already\n")
    done = run("ingest", EXAMPLES, "--store", at, "--json", cwd=tmp_path, **key)
    assert [one["skipped"] for one in json.loads(done.stdout)["documents"]] == [True] * 3

    done = run("search", QUERY, "--store", at, "--maps", "maps", cwd=tmp_path, **key)
    assert f"{REPORT}, page 2" in done.stdout.splitlines()[0], done.stderr
    assert (tmp_path / "maps" / "01-annual-report-2.jpg").exists()
    assert "no map of uploads/examples/notes.txt, page 1: it is a text" in done.stderr
    done = run("search", QUERY, "--store", at, "--json", "-k", 1, cwd=tmp_path, **key)
    [hit] = json.loads(done.stdout)
    assert (hit["document"], hit["page"]) == (REPORT, 2)

    done = run("documents", "--store", at, cwd=tmp_path, **key)
    assert f"     6 pages  {REPORT}\n" in done.stdout and done.stdout.endswith("3 documents\n")
    done = run("remove", REPORT, "--store", at, cwd=tmp_path, **key)
    assert done.stdout == f"removed: {REPORT} (6 pages)\n"
    assert run("remove", REPORT, "--store", at, cwd=tmp_path, **key).returncode == 2
    assert not (tmp_path / "http:").exists()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("ingest X --store URL --watch", 2, "--watch needs a store of this machine"),
        ("ingest X --store URL --prune", 2, "--prune needs a store of this machine"),
        ("ingest X --store URL --password y", 2, "sent no passwords"),
        ("ingest X --store URL --lease-seconds 3", 2, "--lease-seconds is for a store"),
        ("ingest X --store URL --key wrong", 2, "refuses the key"),
        ("search owls --store URL --document x", 2, "no document 'x'"),
        ("documents --store http://127.0.0.1:9", 3, "another address with --store"),
        ("documents --store URL --key wrong", 2, "refuses the key"),
        ("store backup URL --to copy", 2, "is a service"),
    ],
)
def test_commands_that_are_refused(
    filled: Service, tmp_path: Path, command: str, code: int, message: str
) -> None:
    """They end with the exit codes of docs/cli.md and a sentence."""
    words = command.replace("URL", filled.url).replace("X", str(EXAMPLES)).split()
    done = run(*words, cwd=tmp_path, SERVICE_API_KEY=filled.key)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and not done.stdout


def test_a_service_without_a_store(service: Service, tmp_path: Path) -> None:
    """It is a store that is not there."""
    for command in (["documents"], ["search", "owls"], ["ingest", EXAMPLES]):
        done = run(*command, "--store", service.url, cwd=tmp_path, SERVICE_API_KEY=service.key)
        assert (done.returncode, done.stdout) == (3, "") and "has no store" in done.stderr
