"""A confined process reaches no network and no file of the user."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are confined on Linux")

_SCRIPT = """
import socket, sys
from pathlib import Path
from pagevec.ingest import confinement

folder, secret, port, without = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
if "namespaces" in without:
    confinement._make_namespaces = lambda libc: False
if "seccomp" in without:
    confinement._forbid_sockets = lambda libc: False
try:
    confinement.confine(folder)
except OSError as error:
    sys.exit(f"not confined: {error}")

def attempt(name, act):
    try:
        act()
        print(name, "done")
    except OSError:
        print(name, "refused")

attempt("read", lambda: secret.read_text())
attempt("list", lambda: list(secret.parent.iterdir()) or secret.read_text())
attempt("write", lambda: secret.write_text("x"))
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", port), 2))
datagrams = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt("udp", lambda: datagrams().sendto(b"x", ("127.0.0.1", port)))
attempt("system", lambda: Path("/etc/passwd").read_text())
attempt("own", lambda: (folder / "made").write_text("x"))
attempt("pair", lambda: socket.socketpair())
"""


@pytest.mark.parametrize("without", [(), ("namespaces",), ("seccomp",)], ids=" ".join)
def test_a_confined_process(tmp_path: Path, without: tuple[str, ...]) -> None:
    """With all means, or without one of them: the system and its own folder are all there is."""
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (other / "secret").write_text("WALRUS")
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [own, other / "secret", server.getsockname()[1], *without]
        command = [sys.executable, "-c", _SCRIPT, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
    if "not confined" in done.stderr:
        pytest.skip(f"this system: {done.stderr.strip()}")
    assert done.stdout.split("\n")[:-1] == [
        "read refused",
        "list refused",
        "write refused",
        "tcp refused",
        "udp refused",
        "system done",
        "own done",
        "pair done",
    ], done.stderr
    assert (other / "secret").read_text() == "WALRUS"


def test_without_any_means(tmp_path: Path) -> None:
    """Where the network cannot be closed, nothing is confined, and that is said."""
    command = [
        sys.executable,
        "-c",
        _SCRIPT,
        tmp_path,
        tmp_path / "x",
        "1",
        "namespaces",
        "seccomp",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not confined" in done.stderr
