"""Connections that come while a server ends, and signals while it starts."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from conftest import make_settings
from pagevec.server.guard import Guard
from pagevec.server.middleware import Observe
from pagevec.server.run import address_of, listen, server_for


class Waiting(asyncio.Protocol):
    """A connection during whose opening `then` happens; notes its end."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.lost = asyncio.Event()
        self._then = then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._then()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_no_connection_is_lost_without_a_word(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A connection that opens as the server ends is told when it closes: it is not waited for."""

    async def end_while_opening() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            made = list[Waiting]()

            def make() -> Waiting:
                made.append(Waiting(accepting.cancel))
                return made[-1]

            accepting = asyncio.create_task(Guard().accept(listener, make))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            with pytest.raises(asyncio.CancelledError):
                await accepting
            [connection] = made
            assert not connection.transport.is_closing()
            connection.transport.close()
            await asyncio.wait_for(connection.lost.wait(), 5)
            assert await reader.read() == b""
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(end_while_opening())


def test_who_asks_for_nothing_more_is_told_of_the_end() -> None:
    """A request whose application never looks up again gets its 503, too, with an id."""
    has_come = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        has_come.set()
        await asyncio.Event().wait()

    settings = make_settings(shutdown_seconds=1)
    listener = listen(settings)
    server = server_for(Observe(answer), settings)
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    with ThreadPoolExecutor(1) as threads, httpx.Client(trust_env=False) as client:
        serving.start()
        asked = threads.submit(client.get, address_of(listener), timeout=30)
        assert has_come.wait(30)
        server.should_exit = True
        answered = asked.result(30)
        serving.join(30)
    assert not serving.is_alive()
    assert (answered.status_code, answered.json()["code"]) == (503, "draining")
    assert "x-request-id" in answered.headers
    assert answered.headers["connection"] == "close"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_signal_is_lost(number: signal.Signals) -> None:
    """A signal before the server listens to signals ends it as later ones do."""
    code = f"""
import os
from pagevec.server.run import listen, run, server_for
from pagevec.settings import Settings

settings = Settings(service_api_key="a-key-of-this-test", port=0)
server = server_for(None, settings)
find_loop = server.config.get_loop_factory

def interrupt():
    os.kill(os.getpid(), {int(number)})
    return find_loop()

server.config.get_loop_factory = interrupt
run(server, listen(settings))
print("ended")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
