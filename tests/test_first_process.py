"""`pagevec` as the first process of a container, which ignores signals without a handler."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes import environment


def namespace(*command: str) -> list[str]:
    """Return a command that runs `command` as the first process of a namespace of its own."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("needs unshare")
    line = [program, "--pid", "--fork", "--kill-child", *command]
    if subprocess.run([*line[: -len(command)], "true"], capture_output=True).returncode:
        pytest.skip("namespaces cannot be made here")
    return line


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.parametrize("after", [0.4, 1.5])
def test_a_signal_while_it_imports(after: float, tmp_path: Path) -> None:
    """SIGTERM during the imports ends it soon; left alone, it would go on until it is killed."""
    marker = tmp_path / "begun"
    program = (
        "from pagevec import cli\n"
        "from pathlib import Path\n"
        "import importlib\n"
        "load = importlib.import_module\n"
        "def slowly(name):\n"
        "    import time\n"
        f"    Path({str(marker)!r}).touch()\n"
        "    time.sleep(20)  # as imports from a cold disk\n"
        "    return load(name)\n"
        "cli.importlib.import_module = slowly\n"
        "cli.main(['serve'])\n"
    )
    line = namespace(sys.executable, "-c", program)
    popen = subprocess.Popen(line, env=environment(), cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(after)
        [first] = children(popen.pid)
        started = time.monotonic()
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(first)], check=True)
        assert popen.wait(10) == 128 + signal.SIGTERM
        assert time.monotonic() - started < 5
    finally:
        popen.kill()
        popen.wait()
