"""A stand-in for Modal's servers on loopback, for its client and its containers.

All methods in the descriptors of the `modal` wheel are served; those without a handler are answered
UNIMPLEMENTED with their name, so that a newer client fails legibly.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from containers import TASK_HEADER, Containers
from deploy_calls import DeployCalls
from gateway import Gateway
from google.protobuf import message_factory
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from modal_proto import api_pb2
from run_calls import TASK, RunCalls

SECRETS = {
    "my-huggingface-secret": {"HUGGINGFACE_TOKEN": "hf_of-the-secret"},
    "colpali-service-api-key": {"SERVICE_API_KEY": "key-of-the-secret"},
}


class ControlPlane(DeployCalls, RunCalls):
    """Handlers of all calls; keeps what was sent. Its containers write below `folder`.

    Attributes:
        url: address of the control plane.
        gateway: address of the deployed web endpoints.
        calls: names of the calls, in order.
        containers: the processes that run deployed functions.
    """

    def __init__(self, folder: Path, secrets: dict[str, dict[str, str]] = SECRETS) -> None:
        DeployCalls.__init__(self, secrets)
        RunCalls.__init__(self)
        self.calls: list[str] = []
        self.url = self.gateway = ""
        self.containers = Containers(self, folder)

    def __mapping__(self) -> dict[str, Handler]:
        service = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]
        return {f"/{service.full_name}/{m.name}": self._handler(m) for m in service.methods}

    def _handler(self, method: Any) -> Handler:
        request, response = map(
            message_factory.GetMessageClass, (method.input_type, method.output_type)
        )
        streams = method.server_streaming
        handle = self._streaming(method.name) if streams else self._unary(method.name, response)
        kind = Cardinality.UNARY_STREAM if streams else Cardinality.UNARY_UNARY
        return Handler(handle, kind, request, response)

    def _unary(self, name: str, response: type) -> Callable[[Stream[Any, Any]], Any]:
        async def handle(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            TASK.set(_task_of(stream))
            answer = self._known(name)(request)
            answer = await answer if inspect.isawaitable(answer) else answer
            await stream.send_message(response() if answer is None else answer)

        return handle

    def _streaming(self, name: str) -> Callable[[Stream[Any, Any]], Any]:
        async def handle(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            TASK.set(_task_of(stream))
            answers: AsyncIterator[Any] = self._known(name)(request)
            async for answer in answers:
                await stream.send_message(answer)

        return handle

    def _known(self, name: str) -> Callable[[Any], Any]:
        self.calls.append(name)
        handler: Callable[[Any], Any] | None = getattr(self, name, None)
        if handler is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"the stand-in has no {name}")
        return handler


@contextmanager
def serving(plane: ControlPlane, gateway_seconds: float = 150.0) -> Iterator[ControlPlane]:
    """Serve `plane` and its gateway on free ports of loopback until the end of the block."""
    started = threading.Event()
    loop = plane.loop = asyncio.new_event_loop()

    async def main() -> None:
        server = Server([plane])
        await server.start("127.0.0.1", 0)
        plane.url = _address(server._server.sockets[0])  # type: ignore[union-attr]
        web = uvicorn.Server(_config(Gateway(plane, gateway_seconds)))
        serving_web = asyncio.create_task(web.serve())
        while not web.started:
            await asyncio.sleep(0.01)
        plane.gateway = _address(web.servers[0].sockets[0])
        plane.stopped = asyncio.Event()
        started.set()
        await plane.stopped.wait()
        web.should_exit = web.force_exit = True
        await serving_web
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield plane
    finally:
        plane.containers.kill()
        loop.call_soon_threadsafe(plane.stopped.set)
        thread.join(10)


def _task_of(stream: Stream[Any, Any]) -> str:
    return str(stream.metadata.get(TASK_HEADER, "")) if stream.metadata else ""


def _config(app: Gateway) -> uvicorn.Config:
    return uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off")


def _address(socket: Any) -> str:
    return f"http://127.0.0.1:{socket.getsockname()[1]}"
