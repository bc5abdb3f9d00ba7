"""Lines of the log: who asked, with which key, without the key."""

import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from documents import commands, run
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings
from processes import Process, environment, serving

ASK = {"input_type": "text", "inputs": []}
KEYS = ("first-key", "second-key")


@pytest.fixture(scope="module", params=["127.0.0.1", "::"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """A service with two keys and a log in JSON, on IPv4 or on both."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "keys").write_text("\n".join(KEYS))  # the last one without a line end
    variables = environment(SERVICE_API_KEY_FILE="keys", PAGEVEC_LOG_FORMAT="json")
    del variables["SERVICE_API_KEY"]
    with serving(folder, variables, "--host", request.param, key=KEYS[0]) as process:
        yield process


def ask(
    service: Process, key: str, forwarded: str | None = None, source: str | None = None
) -> dict[str, Any]:
    """Send a request, over IPv4, and return its line of the log."""
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": uuid.uuid4().hex}
    if forwarded is not None:
        headers["X-Forwarded-For"] = forwarded
    url = f"http://127.0.0.1:{service.port}/embeddings"
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
        client.post(url, json=ASK, headers=headers)
    return service.line(headers["X-Request-ID"])


@pytest.mark.long
def test_who_asked(service: Process) -> None:
    """A line has the caller's address and its key's name, which the documented command makes too.

    The key itself is nowhere in the log, nor is a wrong one.
    """
    [command] = commands("hosting.md", "name of a key")
    for key in KEYS:
        line = ask(service, key)
        assert (line["client"], line["status"]) == ("127.0.0.1", 200)
        named = run(command.replace("/etc/pagevec/keys", "keys"), service.log.parent)
        assert line["key"] in named.split()
    refused = ask(service, "wrong-key")
    assert (refused["client"], refused["status"]) == ("127.0.0.1", 401)
    assert "key" not in refused
    assert not any(key in service.log.read_text() for key in (*KEYS, "wrong-key"))


@pytest.mark.long
def test_who_asks_most(service: Process) -> None:
    """The documented command counts requests by address, key and status, the most first."""
    if shutil.which("jq") is None:
        pytest.skip("needs Debian's package jq")
    [command] = commands("operations.md", "who asks")
    client = "203.0.113.99"
    [name] = {ask(service, KEYS[0], client)["key"] for _ in range(3)}
    ask(service, "wrong-key", client)
    # The journal has what is printed, too.
    journal = command.replace("journalctl -u pagevec -o cat --since -1h", "cat output log")
    counted = [line.split() for line in run(journal, service.log.parent).splitlines()]
    ours = [line for line in counted if line[1] == client]
    assert ours == [["3", client, name, "200"], ["1", client, "-", "401"]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("198.51.100.9, 203.0.113.7", "203.0.113.7"),  # only what the proxy itself added counts
        ("x" * 9000, "x" * 45),
        ("", "127.0.0.1"),
    ],
)
def test_behind_a_proxy(service: Process, forwarded: str, client: str) -> None:
    """A proxy on this machine says who asked; the caller cannot, by a header of its own."""
    assert ask(service, KEYS[0], forwarded)["client"] == client


@pytest.mark.long
def test_a_stranger_is_no_proxy(tmp_path: Path) -> None:
    """X-Forwarded-For of any other address is ignored, unless the settings name it."""
    variables = environment(PAGEVEC_LOG_FORMAT="json", PAGEVEC_TRUSTED_PROXIES="127.9.0.0/16, ::1")
    with serving(tmp_path, variables) as service:
        for source, client in [("127.0.0.1", "127.0.0.1"), ("127.9.0.1", "203.0.113.7")]:
            assert ask(service, service.key, "203.0.113.7", source)["client"] == client


@pytest.mark.long
def test_what_is_no_request(service: Process) -> None:
    """The line of a connection that is refused before it is a request has its address, too."""
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"no request\r\n\r\n")
        answer = connection.recv(1000).decode()
    [identity] = re.findall(r"x-request-id: (\w+)", answer)
    line = service.line(identity)
    assert (line["event"], line["client"]) == ("refused", "127.0.0.1")


@pytest.mark.parametrize("value", ["proxy.example.org", "10.0.0.0/33", "10.0.0.1;10.0.0.2", ","])
def test_proxies_are_addresses(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is no address would never be trusted: the start stops, naming the variable."""
    monkeypatch.setenv("PAGEVEC_TRUSTED_PROXIES", value)
    with pytest.raises(ConfigurationError, match=r"PAGEVEC_TRUSTED_PROXIES=.*expected addresses"):
        Settings.from_environment(None)
