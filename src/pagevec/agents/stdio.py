"""MCP over standard input and output, until the client closes them or a signal comes.

Both streams are read and written in threads that nobody waits for: a client that sends nothing, or
reads nothing, does not keep this process alive.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

log = logging.getLogger(__name__)

_MOST_LINE = 4 << 20  # bytes of a message
_READ_AHEAD = 64  # messages


class Wire:
    """The two streams of the client, taken away from everything else in this process.

    What other code prints goes to standard error from now on, and child processes read nothing.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self.input: BinaryIO = os.fdopen(os.dup(0), "rb")
        self.output: BinaryIO = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)


def serve_stdio(server: Server[Any], wire: Wire) -> int | None:
    """Serve one client.

    Args:
        server: answers.
        wire: the client's streams.

    Returns:
        The signal that ended it; None where the client did.
    """
    return anyio.run(_serve, server, wire)


async def _serve(server: Server[Any], wire: Wire) -> int | None:
    received: int | None = None
    # A shell starts programs in the background so that they ignore Ctrl-C.
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    async def end_at_signals() -> None:
        nonlocal received
        with anyio.open_signal_receiver(*numbers) as signals:
            received = await anext(signals)
            tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_at_signals)
            # They are used as text files of anyio, whose threads would be waited for.
            streams: Any = _Lines(wire.input), _Output(wire.output)
            async with stdio_server(*streams) as (reading, writing):
                await server.run(reading, writing, server.create_initialization_options())
            tasks.cancel_scope.cancel()
    except* ConnectionError:  # the client reads no more
        pass
    return received


class _Lines:
    """The lines of a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._read: asyncio.Queue[bytes] = asyncio.Queue(_READ_AHEAD)

    async def __aiter__(self) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._pass_on, args=(loop,), daemon=True).start()
        while line := await self._read.get():
            yield line.decode(errors="replace")

    def _pass_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read until the end, or until nobody takes the lines any more."""
        line = b"\n"
        with suppress(Exception):  # the loop has ended
            while line:
                line = self._stream.readline(_MOST_LINE)
                if len(line) == _MOST_LINE:
                    log.error("the client sent a message of %d MiB: this ends", _MOST_LINE >> 20)
                    line = b""
                asyncio.run_coroutine_threadsafe(self._read.put(line), loop).result()


class _Output:
    """A stream that is written to."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    async def write(self, text: str) -> None:
        """Write `text`, as soon as the client reads it."""
        await anyio.to_thread.run_sync(self._stream.write, text.encode(), abandon_on_cancel=True)

    async def flush(self) -> None:
        """Write what is still held."""
        await anyio.to_thread.run_sync(self._stream.flush, abandon_on_cancel=True)
