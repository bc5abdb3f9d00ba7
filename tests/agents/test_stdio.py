"""`pagevec mcp` as agents start it: a process that is talked to over standard input and output."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from agents.asking import REPORT, Agent, check_everything, run
from conftest import KEY, Service, pagevec

COMMAND = [sys.executable, "-m", "pagevec", "mcp"]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without settings of pagevec, and `variables`."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("PAGEVEC_", "SERVICE_"))}
    return {**clean, **variables}


@contextmanager
def started(*options: str, folder: Path, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the command with pipes; what it logs is in `folder/log`."""
    with (folder / "log").open("wb") as log:
        popen = subprocess.Popen(
            [*COMMAND, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(**variables),
            cwd=folder,
        )
    try:
        yield popen
    finally:
        popen.kill()
        popen.communicate()
    assert "Traceback" not in (folder / "log").read_text()


def say(popen: "subprocess.Popen[bytes]", *messages: Any) -> None:
    assert popen.stdin is not None
    for message in messages:
        popen.stdin.write(json.dumps(message).encode() + b"\n")
    popen.stdin.flush()


def hear(popen: "subprocess.Popen[bytes]") -> Any:
    """Return the next message."""
    assert popen.stdout is not None
    return json.loads(popen.stdout.readline())


def call(number: int, tool: str, **arguments: Any) -> Any:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def ends_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_client(store: str, service: Service, tmp_path: Path) -> None:
    """The package's own client starts it with the address of a service, asks, and ends it."""
    parameters = StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "--store", store, "--url", service.url],
        env={"SERVICE_API_KEY": KEY},
        cwd=tmp_path,
    )

    async def conversation() -> None:
        with (tmp_path / "log").open("w") as log:
            async with Client(stdio_client(parameters, log)) as client:
                await check_everything(Agent(client))

    run(conversation)
    assert (tmp_path / "log").read_text() == ""


def test_end_of_input(store: str, service: Service, tmp_path: Path) -> None:
    """Standard output has messages of the protocol alone; the end of the input ends it with 0."""
    options = "--store", store, "--url", service.url, "-vv"
    with started(*options, folder=tmp_path, SERVICE_API_KEY=KEY) as popen:
        say(popen, INITIALIZE, INITIALIZED)
        assert hear(popen)["result"]["serverInfo"]["name"] == "pagevec"
        say(popen, "no message", call(2, "search_pages", query="parcels"))
        answer = hear(popen)
        assert answer["id"] == 2 and not answer["result"].get("isError")
        say(popen, call(3, "read_page", document="nothing.pdf", page=1))
        assert hear(popen)["result"]["isError"]
        rest, _ = popen.communicate(timeout=10)
        assert (popen.returncode, rest) == (0, b"")
    log = (tmp_path / "log").read_text()
    assert "nothing.pdf" in log and KEY not in log


@pytest.mark.long
@pytest.mark.parametrize("model", ["in this process", "of a service"])
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals(
    store: str, service: Service, tmp_path: Path, number: int, code: int, model: str, busy: bool
) -> None:
    """Either signal ends it at once, also while the model is loaded or a call waits for it."""
    source = ["--model", "bundled"] if model == "in this process" else ["--url", service.url]
    with started("--store", store, *source, folder=tmp_path, SERVICE_API_KEY=KEY) as popen:
        say(popen, INITIALIZE, INITIALIZED)
        hear(popen)
        if busy:
            say(popen, call(2, "search_pages", query="parcels"))
            time.sleep(0.2)
        popen.send_signal(number)
        assert popen.wait(3) == code
    assert ("interrupted" in (tmp_path / "log").read_text()) == (code == 130)


@pytest.mark.long
def test_client_that_reads_nothing(store: str, tmp_path: Path) -> None:
    """A client that does not read its answers does not keep the server alive."""
    with started("--store", store, "--url", "http://127.0.0.1:9", folder=tmp_path) as popen:
        say(popen, INITIALIZE, INITIALIZED)
        hear(popen)
        pages = [call(number, "read_page", document=REPORT, page=1) for number in range(10, 40)]
        say(popen, *pages)  # far more than a pipe holds
        time.sleep(1)
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(3) == 0


@pytest.mark.long
def test_garbage(store: str, tmp_path: Path) -> None:
    """What is no message is passed over; one without an end ends the server."""
    with started("--store", store, "--url", "http://127.0.0.1:9", folder=tmp_path) as popen:
        assert popen.stdin is not None
        popen.stdin.write(bytes(range(256)) * 100 + b"\n{}\n[]\n" + b"[" * 100_000 + b"\n")
        say(popen, INITIALIZE, INITIALIZED, call(2, "list_documents"))
        assert [hear(popen)["id"] for _ in range(2)] == [1, 2]
        with suppress(BrokenPipeError):
            popen.stdin.write(b"x" * (6 << 20))
            popen.stdin.flush()
        assert popen.wait(5) == 0
    assert "a message of 4 MiB" in (tmp_path / "log").read_text()


@pytest.mark.long
def test_model_in_this_process(store: str, tmp_path: Path) -> None:
    """It is there before its model is: a client is answered, and a search waits."""
    with started("--store", store, "--model", "bundled", folder=tmp_path) as popen:
        say(popen, INITIALIZE, INITIALIZED, call(2, "search_pages", query="parcels", k=1))
        say(popen, call(3, "list_documents"))
        assert [hear(popen)["id"] for _ in range(3)] == [1, 3, 2]
        say(popen, call(4, "search_pages", query="parcels and punctuality", k=1))
        [found] = hear(popen)["result"]["structuredContent"]["pages"]
        assert (found["document"]["name"], found["page"]) == (REPORT, 4)


@pytest.mark.long
def test_model_that_is_not_there(store: str, tmp_path: Path) -> None:
    """Without its model the documents are read all the same; a search says what is missing."""
    with started("--store", store, "--model", str(tmp_path / "none"), folder=tmp_path) as popen:
        say(popen, INITIALIZE, INITIALIZED, call(2, "search_pages", query="parcels"))
        hear(popen)
        result = hear(popen)["result"]
        assert result["isError"] and str(tmp_path / "none") in result["content"][0]["text"]
        say(popen, call(3, "list_documents"))
        assert hear(popen)["result"]["structuredContent"]["total"] == 3
    assert "the model cannot be used" in (tmp_path / "log").read_text()


@pytest.mark.long
@pytest.mark.parametrize("when", ["at once", "while it works", "later"])
def test_client_that_is_killed(store: str, tmp_path: Path, when: str) -> None:
    """A client that is killed takes the server with it, whatever it is doing."""
    script = (
        "import json, subprocess, sys, time\n"
        f"popen = subprocess.Popen({[*COMMAND, '--store', store, '--model', 'bundled']!r},\n"
        "    stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        f"for message in {[INITIALIZE, INITIALIZED, call(2, 'search_pages', query='parcels')]!r}:\n"
        "    popen.stdin.write(json.dumps(message).encode() + b'\\n')\n"
        "popen.stdin.flush()\n"
        "print(popen.pid, flush=True)\n"
        "for _ in range(2):\n"
        "    popen.stdout.readline()\n"
        "    print('answered', flush=True)\n"
        "time.sleep(100)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert client.stdout is not None
    pid = int(client.stdout.readline())
    for _ in range({"at once": 0, "while it works": 1, "later": 2}[when]):
        assert client.stdout.readline() == "answered\n"
    client.kill()
    client.communicate()
    # At once, it may still be importing what it needs to see that.
    assert ends_within(pid, 20 if when == "at once" else 3)


@pytest.mark.long
def test_misuse(tmp_path: Path) -> None:
    """What is wrong before a client is there ends it with a sentence and the usual code."""
    for options, code, words in (
        ("--store none", 3, "there is no store at none"),
        ("--url http://127.0.0.1:9 --model bundled", 2, "exclude each other"),
        ("--store http://127.0.0.1:9 --model bundled", 2, "has a model of its own"),
        ("--port 8000", 2, "--port needs --http"),
    ):
        done = pagevec("mcp", *options.split(), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr and "Traceback" not in done.stderr


def test_service_that_comes_later(tmp_path: Path, service: Service) -> None:
    """A service that is away does not keep an agent from starting: a call says so."""
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--store", "http://127.0.0.1:9"], cwd=tmp_path
    )

    async def conversation() -> None:
        async with Client(stdio_client(parameters)) as client:
            with anyio.fail_after(20):
                said = await Agent(client).fail("list_documents")
            assert "no service answers at http://127.0.0.1:9" in said and "--store" in said

    run(conversation)
