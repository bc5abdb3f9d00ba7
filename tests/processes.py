"""`pagevec serve` as a process of its own: started, asked, watched, stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import KEY, Service, assert_shows_no_key

MIB = 1024 * 1024
COMMAND = [sys.executable, "-c", "from pagevec.cli import main; main()", "serve"]
_START_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Process(Service):
    """A service in a process of its own; `output` and `log` are its streams, as files."""

    popen: "subprocess.Popen[bytes]"
    output: Path
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def memory(self, name: str = "VmRSS") -> int:
        """Return bytes from the kernel's account: VmRSS now, VmHWM at the peak."""
        lines = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
        (kib,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
        return int(kib) * 1024

    def line(self, identity: str) -> dict[str, Any]:
        """Return the line of a request in a log in JSON, written once its answer was sent."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            # What is being written may be read in part: only a line with its end is one.
            for line in self.log.read_text().splitlines(keepends=True):
                if f'"id": "{identity}"' in line and line.endswith("\n"):
                    said: dict[str, Any] = json.loads(line)
                    return said
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        self.popen.send_signal(number)
        try:
            return self.popen.wait(60)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGABRT)  # which writes what all threads do to the log
            self.popen.wait(60)
            raise AssertionError(f"it did not end: {self.log.read_text()[-20_000:]}") from None


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment, its settings of pagevec replaced by those of a test."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PAGEVEC_") and name != "SERVICE_API_KEY"
    }
    made = {"PAGEVEC_MODEL": "bundled", "PAGEVEC_PORT": "0", "PYTHONFAULTHANDLER": "1"}
    return {**inherited, **made, "SERVICE_API_KEY": KEY, **variables}


def run_to_the_end(
    folder: Path, variables: dict[str, str], *options: str
) -> "subprocess.CompletedProcess[str]":
    """Start a service that shall refuse to start; `folder` is its working directory."""
    return subprocess.run(
        [*COMMAND, *options],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
        check=False,
    )


@contextmanager
def serving(
    folder: Path, variables: dict[str, str], *options: str, key: str | None = None
) -> Iterator[Process]:
    """Serve on a free port until the end of the block; ready when it is entered."""
    output, log = folder / "output", folder / "log"
    with output.open("wb") as out, log.open("wb") as err:
        popen = subprocess.Popen(
            [*COMMAND, *options], env=variables, cwd=folder, stdout=out, stderr=err
        )
    try:
        url = _address(popen, output, log)
        key = key or variables.get("SERVICE_API_KEY", "").partition(",")[0]
        yield Process(url=url, key=key, popen=popen, output=output, log=log)
    finally:
        if popen.poll() is None:
            popen.terminate()
            try:
                popen.wait(30)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        assert_shows_no_key(output.read_text() + log.read_text())


def _address(popen: "subprocess.Popen[bytes]", output: Path, log: Path) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and popen.poll() is None:
        for line in output.read_text().splitlines():
            if line.startswith("address"):
                return line.split()[1]
        time.sleep(0.05)
    raise AssertionError(f"the service did not start: {log.read_text()}")
