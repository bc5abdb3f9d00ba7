"""The paths that clients of vLLM, Jina and OpenAI ask: models, pooling, scores, reranking.

Embedder, keys, limits and prices are those of `/embeddings`; only the form is that of others.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pagevec.engine.api import Embedded, Embedder, Timings
from pagevec.errors import InternalError, ModelNotFound, PagevecError, TooManyInputs
from pagevec.images import EncodedImage
from pagevec.search.maxsim import maxsim
from pagevec.server.bodies import Call, body_limits, read_input_image, receive_body
from pagevec.server.budget import Rooms
from pagevec.server.errors import error_response
from pagevec.server.gate import Gate, hold_answer, unless_gone
from pagevec.server.routes import PiecewiseResponse
from pagevec.server.telemetry import get_record
from pagevec.settings import Settings
from pagevec.types import ModelInfo, MultiVector
from pagevec.wire.schema import EmbeddingsRequest
from pagevec.wire.values import ValueReader
from pagevec.wire.vllm import (
    Input,
    read_embeddings,
    read_pooling,
    read_rerank,
    read_score,
)
from pagevec.wire.vllm_answers import (
    VectorForm,
    bytes_of_component,
    list_in_bytes,
    list_in_json,
)

_TEXTS = EmbeddingsRequest(input_type="text", inputs=[])
_IMAGES = EmbeddingsRequest(input_type="image", inputs=[])
_NOTHING = np.empty((0, 0), np.float32)

_Result = TypeVar("_Result")
_Asked = TypeVar("_Asked", bound="_Asking")
_Endpoint = Callable[["VllmRoutes", Request], Awaitable[Response]]


def _with_message(endpoint: _Endpoint) -> _Endpoint:
    """Answer errors in the form that clients of these paths read, too."""

    async def answer(self: "VllmRoutes", request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except InternalError:
            raise
        except PagevecError as error:
            get_record(request).code = error.code
            return error_response(error, with_message=True)

    return answer


class _Asking(Protocol):
    """What a body asks for."""

    @property
    def model(self) -> str | None: ...

    @property
    def inputs(self) -> Sequence[Input]: ...


@dataclass(frozen=True, eq=False)
class _Vectors:
    """The multi-vectors of a request's inputs, in order, and the tokens that they took."""

    vectors: list[MultiVector]
    tokens: int

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}


class VllmRoutes:
    """The endpoints over one embedder.

    Args:
        settings: limits, and other names of the model.
        embedder: embeds the inputs.
        gate: lets callers in.
        rooms: what requests may hold.
    """

    def __init__(self, settings: Settings, embedder: Embedder, gate: Gate, rooms: Rooms) -> None:
        self._settings = settings
        self._embedder = embedder
        self._gate = gate
        self._rooms = rooms
        self._limits = body_limits(settings)
        self._started = int(time.time())
        self._threads = ThreadPoolExecutor(4, "pagevec-vllm")

    @_with_message
    async def models(self, request: Request) -> Response:
        """Answer `GET /v1/models`."""
        await self._gate.admit(request, allows_basic=True)
        info = self._embedder.info()
        models = [
            {
                "id": name,
                "object": "model",
                "created": self._started,
                "owned_by": "pagevec",
                "root": info.model,
                "parent": None,
            }
            for name in self._names(info)
        ]
        return JSONResponse({"object": "list", "data": models})

    @_with_message
    async def pooling(self, request: Request) -> Response:
        """Answer `POST /pooling`."""
        key, asked = await self._ask(request, read_pooling)
        embedded = await self._embed(request, key, asked.inputs, asked.form)
        head = self._head("pool", asked.model)
        with get_record(request).stage("encode"):
            return await self._in_thread(_pooling_response, head, embedded, asked.form)

    @_with_message
    async def embeddings(self, request: Request) -> Response:
        """Answer `POST /v1/embeddings`."""
        key, asked = await self._ask(request, read_embeddings)
        form = VectorForm()
        embedded = await self._embed(request, key, asked.inputs, form)
        head = self._head("embd", asked.model)
        with get_record(request).stage("encode"):
            return await self._in_thread(
                _list_response, head, embedded, form, ("embedding", asked.field)
            )

    @_with_message
    async def score(self, request: Request) -> Response:
        """Answer `POST /score`."""
        key, asked = await self._ask(request, read_score)
        embedded = await self._embed(request, key, asked.inputs)
        with get_record(request).stage("score"):
            scores = await self._in_thread(
                _score_pairs, embedded.vectors, len(asked.left), asked.pairs
            )
        data = [
            {"index": index, "object": "score", "score": score}
            for index, score in enumerate(scores)
        ]
        head = self._head("score", asked.model)
        return JSONResponse({**head, "object": "list", "data": data, "usage": embedded.usage})

    @_with_message
    async def rerank(self, request: Request) -> Response:
        """Answer `POST /rerank`."""
        key, asked = await self._ask(request, read_rerank)
        embedded = await self._embed(request, key, asked.inputs, queries=1)
        query, *documents = embedded.vectors
        with get_record(request).stage("score"):
            scores = await self._in_thread(maxsim, query, documents)
        best = np.argsort(-scores, kind="stable")[: asked.most]
        results = [
            {
                "index": int(index),
                **({"document": _echo(asked.documents[index])} if asked.with_documents else {}),
                "relevance_score": float(scores[index]),
            }
            for index in best
        ]
        head = self._head("rerank", asked.model)
        return JSONResponse(
            {"id": head["id"], "model": head["model"], "usage": embedded.usage, "results": results}
        )

    def _names(self, info: ModelInfo) -> list[str]:
        others = (self._settings.served_model_names or "").split(",")
        return [*dict.fromkeys([info.model, *filter(None, map(str.strip, others))])]

    def _check_model(self, name: str | None) -> None:
        known = self._names(self._embedder.info())
        if name is not None and name not in known:
            raise ModelNotFound(
                f"the model {name[:100]!r} is not served here: leave `model` out, or name one of "
                f"{', '.join(known)}"
            )

    def _head(self, kind: str, model: str | None) -> dict[str, Any]:
        name = model or self._embedder.info().model
        return {"id": f"{kind}-{time.time_ns():x}", "created": int(time.time()), "model": name}

    async def _ask(self, request: Request, read: Callable[[Any], _Asked]) -> tuple[str, _Asked]:
        """Return the name of the caller's key, and what the body asks for.

        Room for its inputs is held until the answer is sent.
        """
        key = await self._gate.admit(request, allows_basic=True)
        record, settings = get_record(request), self._settings
        self._embedder.info()  # fails before the body is read
        room = record.resources.enter_context(self._rooms.bodies.hold(key))
        reader = ValueReader(self._limits)
        with record.stage("receive"):
            await receive_body(
                request.receive,
                request.headers,
                reader,
                room,
                settings.max_body_bytes,
                self._rooms.patience,
            )
        with record.stage("decode"):
            asked = await self._in_thread(lambda: read(reader.finish()))
        room.settle(sum(map(sys.getsizeof, asked.inputs)))
        self._check_model(asked.model)
        return key, asked

    async def _embed(
        self,
        request: Request,
        key: str,
        inputs: Sequence[Input],
        form: VectorForm | None = None,
        queries: int = 0,
    ) -> _Vectors:
        """Embed texts and page images: all of them, or none.

        Args:
            request: whose record gets the stages.
            key: name of the caller's key.
            inputs: texts and image files.
            form: how the vectors are sent back; None where only scores are.
            queries: inputs beyond those that the limit counts.
        """
        record, most = get_record(request), self._settings.max_inputs + queries
        if len(inputs) > most:
            raise TooManyInputs(f"{len(inputs)} inputs, the limit is {most}: send fewer")
        info = self._embedder.info()
        vector_bytes = 16 + int(info.dim * bytes_of_component(form)) if form else 0
        parts = await self._in_thread(self._divide, inputs)
        kept = 4 * info.dim + vector_bytes
        expected = kept * sum(call.count_vectors(info) for _, call in parts)
        room = await hold_answer(request, self._rooms, key, expected)
        futures = [call.submit(self._embedder, key, vector_bytes) for _, call in parts]
        vectors = [_NOTHING] * len(inputs)
        answers = list[Embedded]()
        try:
            for (places, _), future in zip(parts, futures, strict=True):
                answers.append(await _await(future, request, places))
                for place, one in zip(places, answers[-1].vectors, strict=True):
                    vectors[place] = one
        finally:
            for future in futures:
                future.cancel()
        room.settle(kept * sum(map(len, vectors)))
        record.input_type, record.inputs = parts[-1][1].request.input_type, len(inputs)
        record.add_embedded(_merge(answers))
        return _Vectors(vectors, sum(one.token_count for one in answers))

    def _divide(self, inputs: Sequence[Input]) -> list[tuple[list[int], Call]]:
        """Return a call for the texts and one for the images, where there are any, with places."""
        texts = [place for place, one in enumerate(inputs) if isinstance(one, str)]
        images = [place for place, one in enumerate(inputs) if isinstance(one, bytes)]
        calls = [
            (texts, Call(_TEXTS, [str(inputs[place]) for place in texts], [])),
            (images, Call(_IMAGES, [], self._read_images(inputs))),
        ]
        return [(places, call) for places, call in calls if places]

    def _read_images(self, inputs: Sequence[Input]) -> list[EncodedImage]:
        limits = self._settings.image_limits
        return [
            read_input_image(place, one, limits)
            for place, one in enumerate(inputs)
            if isinstance(one, bytes)
        ]

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


async def _await(future: "Future[Embedded]", request: Request, places: Sequence[int]) -> Embedded:
    """Wait for an answer; an error blames the input at its place in the whole request."""
    try:
        return await unless_gone(asyncio.wrap_future(future), request.receive)
    except PagevecError as error:
        raise error if error.index is None else error.at(places[error.index]) from None


def _merge(answers: Sequence[Embedded]) -> Embedded:
    timings = [one.timings for one in answers]
    return Embedded(
        [],
        sum(one.token_count for one in answers),
        Timings(
            sum(one.prepare for one in timings),
            max(one.queue for one in timings),
            sum(one.forward for one in timings),
        ),
        tuple(size for one in answers for size in one.batch_sizes),
    )


def _score_pairs(
    vectors: Sequence[MultiVector], left: int, pairs: Sequence[tuple[int, int]]
) -> list[float]:
    return [float(maxsim(vectors[one], [vectors[left + other]])[0]) for one, other in pairs]


def _echo(document: Input) -> dict[str, str | None]:
    return {"text": document if isinstance(document, str) else None}


def _pooling_response(head: dict[str, Any], embedded: _Vectors, form: VectorForm) -> Response:
    if form.encoding in ("float", "base64"):
        return _list_response(head, embedded, form, ("pooling", "data"))
    pieces, items = list_in_bytes(embedded.vectors, form)
    metadata = json.dumps({**head, "data": items, "usage": embedded.usage})
    headers = {"metadata": metadata} if form.encoding == "bytes" else {}
    return PiecewiseResponse(pieces, "application/octet-stream", headers)


def _list_response(
    head: dict[str, Any], embedded: _Vectors, form: VectorForm, names: tuple[str, str]
) -> Response:
    pieces = list_in_json(head, embedded.vectors, embedded.usage, form, names)
    return PiecewiseResponse(pieces, "application/json", {})
