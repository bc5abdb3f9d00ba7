"""The web gateway: HTTP on one side, ASGI messages to a container on the other."""

import asyncio
from typing import Any

from modal._serialization import deserialize_data_format, serialize_data_format
from modal_proto import api_pb2 as api
from starlette.types import Message, Receive, Scope, Send


class Gateway:
    """An ASGI application that hands each request to the function with the web endpoint."""

    def __init__(self, plane: Any, seconds: float) -> None:
        self._plane = plane
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/blobs/"):
            await self._blob(scope, receive, send)
            return
        call = self._plane.new_call(self._plane.function_id("Embeddings.*"))
        arguments = ((_plain(scope),), {})
        self._plane.put_input(
            call,
            api.FunctionInput(
                args=serialize_data_format(arguments, api.DATA_FORMAT_PICKLE),
                data_format=api.DATA_FORMAT_PICKLE,
                method_name="web",
            ),
        )
        sending = asyncio.create_task(_feed(receive, call))
        try:
            await self._answer(call, send)
        finally:
            sending.cancel()
            call.data_in.put_nowait(None)

    async def _answer(self, call: Any, send: Send) -> None:
        """Pass the answer on; if none has begun in time, answer with a redirect as Modal does."""
        ended = asyncio.create_task(call.outputs.get())
        try:
            message = await asyncio.wait_for(_next(call, ended), self._seconds)
            while message is not None:
                await send(message)
                last = message["type"] == "http.response.body" and not message.get("more_body")
                message = None if last else await _next(call, ended)
        except TimeoutError:
            location = f"/?__modal_function_call_id={call.id}".encode()
            await _send_whole(send, 303, (b"location", location))
        finally:
            ended.cancel()

    async def _blob(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, body = scope["path"].rpartition("/")[2], b""
        if scope["method"] == "PUT":
            more = True
            while more:
                message = await receive()
                body, more = body + message["body"], message.get("more_body", False)
            self._plane.blobs[name], body = body, b""
        else:
            body = self._plane.blobs[name]
        await _send_whole(send, 200, (b"etag", b"any"), body)


def _plain(scope: Scope) -> dict[str, Any]:
    wanted = ("type", "http_version", "method", "scheme", "path", "query_string", "headers")
    plain = {name: scope[name] for name in wanted}
    plain["headers"] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return plain | {"asgi": {"version": "3.0"}, "client": ("127.0.0.1", 1), "root_path": ""}


async def _feed(receive: Receive, call: Any) -> None:
    more = True
    while more:
        message = await receive()
        call.data_in.put_nowait(serialize_data_format(message, api.DATA_FORMAT_ASGI))
        more = message["type"] == "http.request" and message.get("more_body", False)
    message = await receive()  # the client leaves, or nothing more comes
    call.data_in.put_nowait(serialize_data_format(message, api.DATA_FORMAT_ASGI))


async def _next(call: Any, ended: "asyncio.Task[Any]") -> Message | None:
    """Return the next message of the application; None if it ended without one."""
    coming = asyncio.create_task(call.data_out.get())
    await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not coming.done() and call.data_out.empty():
        coming.cancel()
        return None
    message: Message = deserialize_data_format(await coming, api.DATA_FORMAT_ASGI, None)
    return message


async def _send_whole(
    send: Send, status: int, header: tuple[bytes, bytes], body: bytes = b""
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [header]})
    await send({"type": "http.response.body", "body": body})
