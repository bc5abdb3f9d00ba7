"""How much of the machine this process may use, and at which address it is found."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pagevec.machine import usable_cores
from pagevec.probe import local_url
from pagevec.server.run import address_of, listen
from pagevec.settings import Settings

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def a_group(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, HERE),
        ("0::/\n", {}, HERE),
        ("", {}, HERE),
        # a quota of a group above, as Kubernetes sets it on the pod
        ("0::/pod/one\n", {"sys/fs/cgroup/pod/cpu.max": "50000 100000\n"}, 1),
        (
            "0::/pod/one\n",
            {
                "sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/pod/one/cpu.max": "max 100000\n",
            },
            1,
        ),
        # version 1: the path is the host's, the container's mount begins at its end
        (
            "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n1:name=systemd:/docker/a\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            HERE,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "garbled"}, HERE),
    ],
)
def test_cores_of_a_control_group(
    cgroup: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    """The least of affinity and quotas counts, in both versions of control groups."""
    assert usable_cores(a_group(tmp_path, cgroup, files)) == min(expected, HERE)


@pytest.mark.skipif(HERE < 2, reason="needs two cores")
def test_cores_of_an_affinity() -> None:
    """A process that is bound to one core uses one thread, torch's own included."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pagevec.machine import usable_cores\n"
        "from pagevec.engine.backends.device import CORES\n"
        "print(usable_cores(), CORES)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1"], done.stderr


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("fd00::7", "http://[fd00::7]:80"),
        ("pages.internal", "http://pages.internal:80"),
    ],
)
def test_an_address_that_can_be_used(host: str, url: str) -> None:
    """A host to listen on becomes an address to ask: wildcards are asked on loopback."""
    assert local_url(host, 80) == url


def answer_once(host: str, port: int = 0) -> tuple["subprocess.Popen[str]", int]:
    """Start a server on `host`, by pagevec's own `listen`, that says it is ready."""
    program = (
        "import sys\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "from pagevec.server.run import listen\n"
        "from pagevec.settings import Settings\n"
        "class Ready(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if self.path == '/ready' else 404)\n"
        "        self.end_headers()\n"
        "settings = Settings(_env_file=None, host=sys.argv[1], port=int(sys.argv[2]))\n"
        "server = HTTPServer((sys.argv[1], 0), Ready, bind_and_activate=False)\n"
        "server.socket = listen(settings)\n"
        "print(server.socket.getsockname()[1], flush=True)\n"
        "server.serve_forever()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, host, str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def probe(**environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {n: v for n, v in os.environ.items() if not n.startswith("PAGEVEC_")}
    return subprocess.run(
        [sys.executable, "-m", "pagevec.probe"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "127.0.0.2", "localhost"])
def test_the_health_check_of_the_image(host: str) -> None:
    """It finds a service on whichever address this listens on, and says what is wrong if not."""
    process, port = answer_once(host)
    try:
        done = probe(PAGEVEC_HOST=host, PAGEVEC_PORT=str(port), http_proxy="http://127.0.0.1:9")
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        process.kill()
        process.wait()
    done = probe(PAGEVEC_HOST=host, PAGEVEC_PORT=str(port))
    assert done.returncode == 1
    assert "Connection refused" in done.stderr and "Traceback" not in done.stderr


def test_all_addresses_are_those_of_ipv4_too() -> None:
    """On `::` the service is reached by IPv4 as well, and its printed address can be used."""
    with listen(Settings(_env_file=None, host="::", port=0)) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://[::1]:{port}"
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()


RELEASE = """
from pathlib import Path
import ctypes
from pagevec.machine import release_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

pieces = [ctypes.create_string_buffer(b"x" * 60_000, 60_000) for _ in range(4000)]
kept = pieces[::40]
full = resident()
del pieces
release_freed_memory()
print(full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
def test_freed_memory_is_given_back() -> None:
    """Of 240 MB in pieces of which one in forty is kept, most go back to the system."""
    done = subprocess.run(
        [sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 180_000_000
