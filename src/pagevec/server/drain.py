"""Middleware: an answer reaches a client that is still sending.

Whoever closes a connection while unread bytes arrive resets it, and the reset destroys the answer
on its way: a client would see a broken connection instead of its 413. So the answer is sent at
once, and what the client still sends is read and thrown away before the response ends.
"""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A client that has not finished sending after this long loses the connection.
_PATIENCE_SECONDS = 300.0


class DrainUnreadBody:
    """Pure ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, patience: float = _PATIENCE_SECONDS) -> None:
        self._app = app
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive)

        async def send_then_drain(message: Message) -> None:
            ends = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not ends or body.complete:
                await send(message)
                return
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await body.drain()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, body.receive, send_then_drain)


class _Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # the last part, or a disconnect
            self.complete = True
        return message

    async def drain(self) -> None:
        while not self.complete:
            await self.receive()
