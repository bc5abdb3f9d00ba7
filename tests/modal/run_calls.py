"""The calls of running functions: inputs on their way to containers, outputs on their way back."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import empty_pb2
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as api

TASK: ContextVar[str] = ContextVar("TASK", default="")
"""The container that calls, by its task; empty for clients."""

_LONG_POLL_SECONDS = 1.0


@dataclass
class Call:
    """A function call, with one input or the many of a map.

    Attributes:
        id: of the call.
        function: id of the function.
        data_in: pieces of a web request; None at its end.
        data_out: pieces of the answer.
        outputs: results of finished inputs.
    """

    id: str
    function: str
    data_in: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    data_out: "asyncio.Queue[bytes]" = field(default_factory=asyncio.Queue)
    outputs: "asyncio.Queue[api.FunctionPutOutputsItem]" = field(default_factory=asyncio.Queue)


class RunCalls:
    """Queues of inputs, one for each function, and what containers report.

    Attributes:
        in_flight: inputs that containers have now.
        peak: inputs that containers had at most.
        task_results: failures of containers outside of any input.
        checkpoints: what had been printed when each container was ready for a snapshot.
        commits: ids of the volumes that were committed.
        held: the inputs that each container has now, by its task.
        answered: how many inputs each container has answered, by its task.
    """

    containers: Any
    functions: dict[str, api.Function]
    blobs: dict[str, bytes]
    stopped: asyncio.Event
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.in_flight = self.peak = 0
        self.task_results: list[api.GenericResult] = []
        self.checkpoints: list[str] = []
        self.commits: list[str] = []
        self.held: dict[str, dict[str, api.FunctionGetInputsItem]] = defaultdict(dict)
        self.answered: Counter[str] = Counter()
        self.blobs = {}
        self._calls: dict[str, Call] = {}
        self._inputs: dict[str, asyncio.Queue[api.FunctionGetInputsItem]] = {}
        self._of_input: dict[str, tuple[Call, int]] = {}

    @property
    def count_of_inputs(self) -> int:
        return len(self._of_input)

    # For the gateway

    def new_call(self, function: str) -> Call:
        call = Call(f"fc-{len(self._calls) + 1}", function)
        self._calls[call.id] = call
        return call

    def put_input(self, call: Call, input_: api.FunctionInput, index: int = 0) -> str:
        """Queue an input and start a container if none runs."""
        id_ = f"in-{len(self._of_input) + 1}"
        self._of_input[id_] = call, index
        self._queue(call.function).put_nowait(
            api.FunctionGetInputsItem(
                input_id=id_,
                input=input_,
                function_call_id=call.id,
                function_call_invocation_type=api.FUNCTION_CALL_INVOCATION_TYPE_SYNC,
                function_map_idx=index,
            )
        )
        self.containers.ensure(call.function)
        if self._is_busy(call.function):
            self.containers.start(call.function)
        return id_

    def _is_busy(self, function: str) -> bool:
        """Whether Modal would start another container: there are more inputs, and it may."""
        definition = self.functions[function]
        tasks = self.containers.running(definition.function_name)
        inputs = self._queue(function).qsize() + sum(len(self.held[task]) for task in tasks)
        most = definition.autoscaler_settings.max_containers or inputs
        return not definition.max_concurrent_inputs and len(tasks) < min(inputs, most)

    def share_inputs(self, one: str, other: str) -> None:
        """Give the inputs of both functions to the container of `one`."""
        if one != other and self._inputs.get(other) is not self._queue(one):
            waiting, self._inputs[other] = self._queue(other), self._queue(one)
            while not waiting.empty():
                self._queue(one).put_nowait(waiting.get_nowait())

    def stop_containers(self) -> None:
        """Let containers stop, as when Modal scales down."""
        end = api.FunctionGetInputsItem(kill_switch=True)
        for queue in {id(queue): queue for queue in self._inputs.values()}.values():
            self.loop.call_soon_threadsafe(queue.put_nowait, end)

    def crash(self, task: str) -> None:
        """Kill a container; its inputs go to a new one, as Modal promises for deployed apps."""
        function, held = self.containers.tasks[task], self.held.pop(task, {})
        self.containers.kill(task)
        self.in_flight -= len(held)
        for item in held.values():
            self.loop.call_soon_threadsafe(self._queue(function).put_nowait, item)
        if held:
            self.containers.ensure(function)

    # From `modal run`, and from containers that call others

    async def AppGetLogs(self, request: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(0.2)
        yield api.TaskLogsBatch(app_done=True)

    def FunctionMap(self, request: Any) -> Any:
        call = self.new_call(request.function_id)
        return api.FunctionMapResponse(
            function_call_id=call.id,
            pipelined_inputs=self._put_all(call, request.pipelined_inputs),
            max_inputs_outstanding=100,
        )

    def FunctionPutInputs(self, request: Any) -> Any:
        call = self._calls[request.function_call_id]
        return api.FunctionPutInputsResponse(inputs=self._put_all(call, request.inputs))

    def FunctionFinishInputs(self, request: Any) -> Any:
        return empty_pb2.Empty()

    def _put_all(self, call: Call, items: Any) -> list[api.FunctionPutInputsResponseItem]:
        return [
            api.FunctionPutInputsResponseItem(
                idx=item.idx, input_id=self.put_input(call, item.input, item.idx), input_jwt="jwt"
            )
            for item in items
        ]

    async def FunctionGetOutputs(self, request: Any) -> Any:
        call = self._calls[request.function_call_id]
        try:
            wait = min(request.timeout or 0.01, _LONG_POLL_SECONDS)
            done = await asyncio.wait_for(call.outputs.get(), wait)
        except TimeoutError:
            return api.FunctionGetOutputsResponse()
        index = self._of_input[done.input_id][1]
        output = api.FunctionGetOutputsItem(
            result=done.result, idx=index, input_id=done.input_id, data_format=done.data_format
        )
        return api.FunctionGetOutputsResponse(
            outputs=[output], idxs=[index], last_entry_id=done.input_id
        )

    def BlobCreate(self, request: Any) -> Any:
        blob = f"bl-{len(self.blobs) + 1}"
        self.blobs[blob] = b""
        return api.BlobCreateResponse(blob_id=blob, upload_url=self._blob_url(blob))

    def BlobGet(self, request: Any) -> Any:
        return api.BlobGetResponse(download_url=self._blob_url(request.blob_id))

    def _blob_url(self, blob: str) -> str:
        return f"{getattr(self, 'gateway')}/blobs/{blob}"  # noqa: B009 - the whole plane has it

    # From containers

    def ContainerHello(self, request: Any) -> Any:
        return empty_pb2.Empty()

    async def ContainerHeartbeat(self, request: Any) -> Any:
        await asyncio.sleep(_LONG_POLL_SECONDS)

    def ContainerCheckpoint(self, request: Any) -> Any:
        self.checkpoints.append(self.containers.printed())
        return empty_pb2.Empty()

    def FunctionGetDynamicConcurrency(self, request: Any) -> Any:
        return api.FunctionGetDynamicConcurrencyResponse(concurrency=request.max_concurrency)

    async def FunctionGetInputs(self, request: Any) -> Any:
        try:
            item = await asyncio.wait_for(
                self._queue(request.function_id).get(), _LONG_POLL_SECONDS
            )
        except TimeoutError:
            return api.FunctionGetInputsResponse()
        if not item.kill_switch:
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self.held[TASK.get()][item.input_id] = item
        return api.FunctionGetInputsResponse(inputs=[item])

    def FunctionPutOutputs(self, request: Any) -> Any:
        for output in request.outputs:
            self.in_flight -= 1
            self.held[TASK.get()].pop(output.input_id, None)
            self.answered[TASK.get()] += 1
            self._of_input[output.input_id][0].outputs.put_nowait(output)
        return empty_pb2.Empty()

    async def FunctionCallGetDataIn(self, request: Any) -> AsyncIterator[Any]:
        call, index = self._calls[request.function_call_id], request.last_index
        while (data := await call.data_in.get()) is not None:
            index += 1
            yield api.DataChunk(data_format=api.DATA_FORMAT_ASGI, data=data, index=index)

    def FunctionCallPutDataOut(self, request: Any) -> Any:
        for chunk in request.data_chunks:
            data = self.blobs[chunk.data_blob_id] if chunk.data_blob_id else chunk.data
            self._calls[request.function_call_id].data_out.put_nowait(data)
        return empty_pb2.Empty()

    def VolumeCommit(self, request: Any) -> Any:
        self.commits.append(request.volume_id)
        self.containers.volumes.commit(TASK.get())
        return api.VolumeCommitResponse()

    def VolumeReload(self, request: Any) -> Any:
        if opened := self.containers.opened(TASK.get()):
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"there are open files preventing the operation: {opened}",
            )
        self.containers.volumes.reload(TASK.get())
        return empty_pb2.Empty()

    def TaskResult(self, request: Any) -> Any:
        self.task_results.append(request.result)
        return empty_pb2.Empty()

    def _queue(self, function: str) -> "asyncio.Queue[api.FunctionGetInputsItem]":
        return self._inputs.setdefault(function, asyncio.Queue())
