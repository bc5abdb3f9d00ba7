"""What a killed process has left of its readers is removed by the next one, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import EXAMPLES
from pagevec.ingest import homes

READ_AND_WAIT = """
import sys, time
from pathlib import Path
from pagevec.ingest.boundary import open_document

with open_document(Path(sys.argv[1])) as pages:
    pages.make(1)
    print("open", flush=True)
    time.sleep(60)
"""


def test_homes_of_killed_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a process that lives stays; once that was killed, the next one removes it."""
    command = [sys.executable, "-c", READ_AND_WAIT, str(EXAMPLES / "annual-report.pdf")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        stranger = tmp_path / "pagevec-reader-of-somebody"
        stranger.mkdir()
        [home] = set(tmp_path.iterdir()) - {stranger}
        monkeypatch.setattr(homes.tempfile, "gettempdir", lambda: str(tmp_path))
        homes.remove_old_homes.__wrapped__()
        assert home.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    homes.remove_old_homes.__wrapped__()
    assert list(tmp_path.iterdir()) == [stranger]
