"""A stand-in for a Qdrant server: REST and gRPC over the local mode of qdrant-client.

No program of the server is on PyPI. So that the store, the client, HTTP and several processes are
tested all the same, this serves what the store asks for. What only a server does (replicas, shards,
quantization) is not tested by it; the engine itself is, in the tests of embedded stores.
"""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from grpc import server as grpc_server
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class QdrantServer:
    """The stand-in, and what it shall do.

    Attributes:
        key: the API key that requests need; None: none.
        version: what it says it is.
        is_read_only: whether it refuses all writes, as for a key that may only read.
        requests: method and path of each request.
        url: host and port, once it runs.
    """

    key: str | None = None
    version: str = "1.20.0"
    is_read_only: bool = False
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._client = QdrantClient(":memory:", force_disable_check_same_thread=True)

    def name(self, collection: str, scheme: str = "qdrant") -> str:
        """Return the name of a store in this server."""
        return f"{scheme}://{self.url}/{collection}"

    async def answer(self, request: Request) -> Response:
        """Do what a request asks, one at a time."""
        body = await request.body()
        path = request.url.path.strip("/").split("/")
        self.requests.append(f"{request.method} {request.url.path}")
        if self.key and request.headers.get("api-key") != self.key:
            raise HTTPException(401, "Must provide an API key or an Authorization bearer token")
        if path == [""]:
            return JSONResponse({"title": "qdrant", "version": self.version})
        name, what = path[1], "/".join(path[2:])
        is_write = request.method == "PUT" or what == "points/delete"
        if is_write and self.is_read_only:
            raise HTTPException(403, "Forbidden: the key may only read")
        asked = TypeAdapter(Any).validate_json(body) if body else {}
        found = self._do(request.method, name, what, asked)
        result = TypeAdapter(Any).dump_python(found, mode="json")
        return JSONResponse({"usage": None, "status": "ok", "time": 0.0, "result": result})

    def _do(self, method: str, name: str, what: str, asked: dict[str, Any]) -> Any:  # noqa: PLR0911
        client = self._client
        if what == "exists":
            return {"exists": client.collection_exists(name)}
        if (method, what) == ("PUT", ""):
            return self._create(name, asked)
        if not client.collection_exists(name):
            raise HTTPException(404, f"Not found: Collection `{name}` doesn't exist!")
        if what == "":
            return client.get_collection(name)
        if (method, what) == ("PUT", "points"):
            made = models.PointsList.model_validate(asked)
            return client.upsert(name, made.points, update_filter=made.update_filter)
        if what == "index":
            return {"operation_id": 0, "status": "completed"}
        if what == "points":
            one = models.PointRequest.model_validate(asked)
            return client.retrieve(name, one.ids, one.with_payload, one.with_vector or False)
        if what == "points/delete":
            return client.delete(name, models.FilterSelector.model_validate(asked))
        return self._look(name, what, asked)

    def _create(self, name: str, asked: dict[str, Any]) -> bool:
        if self._client.collection_exists(name):
            raise HTTPException(409, f"Wrong input: Collection `{name}` already exists!")
        made = models.CreateCollection.model_validate(asked)
        return self._client.create_collection(name, vectors_config=made.vectors or {})

    def _look(self, name: str, what: str, asked: dict[str, Any]) -> Any:
        client = self._client
        if what == "points/scroll":
            scroll = models.ScrollRequest.model_validate(asked)
            points, following = client.scroll(
                name,
                scroll.filter,
                limit=scroll.limit or 10,
                offset=scroll.offset,
                with_payload=scroll.with_payload,
                with_vectors=scroll.with_vector or False,
            )
            return {"points": points, "next_page_offset": following}
        if what == "points/count":
            return client.count(name, models.CountRequest.model_validate(asked).filter)
        if what == "facet":
            facet = models.FacetRequest.model_validate(asked)
            return client.facet(name, facet.key, facet.filter, facet.limit or 10)
        query = models.QueryRequest.model_validate(asked)
        return client.query_points(
            name,
            query.query,
            using=query.using,
            query_filter=query.filter,
            limit=query.limit or 10,
            with_payload=query.with_payload or False,
        )


class _GrpcCollections(grpc.CollectionsServicer):  # type: ignore[misc]
    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def CollectionExists(self, asked: Any, _: Any) -> Any:
        found = self._client.collection_exists(asked.collection_name)
        return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=found))

    def Create(self, asked: Any, _: Any) -> Any:
        made = GrpcToRest.convert_vectors_config(asked.vectors_config)
        self._client.create_collection(asked.collection_name, vectors_config=made)
        return grpc.CollectionOperationResponse(result=True)

    def Get(self, asked: Any, _: Any) -> Any:
        found = self._client.get_collection(asked.collection_name)
        return grpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(found))


class _GrpcPoints(grpc.PointsServicer):  # type: ignore[misc]
    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def Upsert(self, asked: Any, _: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(one) for one in asked.points]
        only = asked.HasField("update_filter") and GrpcToRest.convert_filter(asked.update_filter)
        return _done(self._client.upsert(asked.collection_name, points, update_filter=only or None))

    def Delete(self, asked: Any, _: Any) -> Any:
        chosen = GrpcToRest.convert_points_selector(asked.points)
        return _done(self._client.delete(asked.collection_name, chosen))

    def CreateFieldIndex(self, _asked: Any, _: Any) -> Any:
        status = models.UpdateStatus.COMPLETED
        return _done(models.UpdateResult(operation_id=0, status=status))

    def Get(self, asked: Any, _: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(one) for one in asked.ids]
        found = self._client.retrieve(asked.collection_name, ids, *_wanted(asked))
        return grpc.GetResponse(result=map(RestToGrpc.convert_record, found))

    def Scroll(self, asked: Any, _: Any) -> Any:
        offset = asked.HasField("offset") and GrpcToRest.convert_point_id(asked.offset)
        payload, vectors = _wanted(asked)
        found, following = self._client.scroll(
            asked.collection_name,
            GrpcToRest.convert_filter(asked.filter),
            limit=asked.limit,
            offset=offset or None,
            with_payload=payload,
            with_vectors=vectors,
        )
        more = None if following is None else RestToGrpc.convert_extended_point_id(following)
        records = map(RestToGrpc.convert_record, found)
        return grpc.ScrollResponse(result=records, next_page_offset=more)

    def Count(self, asked: Any, _: Any) -> Any:
        where = GrpcToRest.convert_filter(asked.filter)
        found = self._client.count(asked.collection_name, where)
        return grpc.CountResponse(result=grpc.CountResult(count=found.count))

    def Facet(self, asked: Any, _: Any) -> Any:
        where = GrpcToRest.convert_filter(asked.filter)
        found = self._client.facet(asked.collection_name, asked.key, where, asked.limit)
        return grpc.FacetResponse(hits=map(RestToGrpc.convert_facet_value_hit, found.hits))

    def Query(self, asked: Any, _: Any) -> Any:
        found = self._client.query_points(
            asked.collection_name,
            GrpcToRest.convert_query(asked.query),
            using=asked.using,
            query_filter=GrpcToRest.convert_filter(asked.filter),
            limit=asked.limit,
            with_payload=_wanted(asked)[0],
        )
        return grpc.QueryResponse(result=map(RestToGrpc.convert_scored_point, found.points))


def _wanted(asked: Any) -> tuple[Any, Any]:
    """Return what of points is asked for: their payload and their vectors."""
    return (
        GrpcToRest.convert_with_payload_selector(asked.with_payload),
        GrpcToRest.convert_with_vectors_selector(asked.with_vectors),
    )


def _done(made: models.UpdateResult) -> Any:
    return grpc.PointsOperationResponse(result=RestToGrpc.convert_update_result(made))


@contextmanager
def running_grpc(server: QdrantServer) -> Iterator[int]:
    """Serve gRPC beside a running stand-in, on a free port, until the end of the block."""
    serving = grpc_server(ThreadPoolExecutor(1))
    client = server._client
    grpc.collections_service_pb2_grpc.add_CollectionsServicer_to_server(
        _GrpcCollections(client), serving
    )
    grpc.points_service_pb2_grpc.add_PointsServicer_to_server(_GrpcPoints(client), serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    try:
        yield port
    finally:
        serving.stop(None)


@contextmanager
def running_qdrant(server: QdrantServer, **tls: Any) -> Iterator[QdrantServer]:
    """Serve on a free port of loopback, in a thread, until the end of the block."""

    def refuse(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        said = getattr(error, "detail", str(error))
        return JSONResponse({"status": {"error": said}, "time": 0.0}, status)

    app = Starlette(
        routes=[Route("/{path:path}", server.answer, methods=["GET", "PUT", "POST"])],
        exception_handlers={HTTPException: refuse, ValueError: refuse},
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="error", **tls)
        serving = uvicorn.Server(config)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not serving.started:
            thread.join(0.01)
        try:
            yield server
        finally:
            serving.should_exit = True
            thread.join()
