"""A Qdrant server, or a cluster of them, through qdrant-client."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import numpy as np
from dotenv import dotenv_values
from grpc import RpcError
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from pagevec.errors import InvalidRequest, StoreError
from pagevec.secrets import fault_of_key, mask_key
from pagevec.stores.base import ProcessGuard
from pagevec.stores.qdrant.engine import (
    Collection,
    Engine,
    Point,
    Schema,
    Where,
    batches,
    oversampling,
)
from pagevec.types import MultiVector

KEY_VARIABLE = "QDRANT_API_KEY"
_EXPECTED = "qdrant://host:6333/NAME, or qdrant+https:// for TLS"
_LEAST_VERSION = (1, 16)  # conditional updates, which leases need
_TIMEOUT_SECONDS = 60
_VECTORS = "page"
_ROWS_AT_A_TIME, _PAGES_AT_A_TIME = 1000, 16
_FIRST_VALUES = 1000
_OPTIONS = {"shards": "shards", "replicas": "replicas", "grpc": "grpc_port"}

# What to do about an answer, by its status.
_ADVICE = {
    401: f"give its API key in {KEY_VARIABLE}",
    403: f"the API key in {KEY_VARIABLE} may not do that; a search needs to read alone",
    404: "check its name",
    413: "let the server accept larger requests (service.max_request_size_mb)",
    429: "it is too busy, or it limits requests; try again later",
    507: "make room on its disk, then try again",
}


@dataclass(frozen=True)
class Address:
    """Where a store is.

    Attributes:
        url: of the server's REST API.
        collection: what the names of its collections begin with: `-ledger` is behind it, or the
            dimension of the pages.
        grpc_port: port of its gRPC API, where that is to be used.
        shards: into how many a new collection is cut; None for the server's default.
        replicas: how many copies of each shard a new collection has.
    """

    url: str
    collection: str
    grpc_port: int | None = None
    shards: int | None = None
    replicas: int | None = None

    @classmethod
    def parse(cls, address: str) -> Self:
        """Return the parts of `qdrant://host:6333/NAME?shards=6&replicas=2&grpc=6334`.

        Raises:
            InvalidRequest: it is not of this form.
        """
        parts = urlsplit(address)
        if "@" in parts.netloc:
            raise InvalidRequest(
                "the address of a store in Qdrant holds no key, because others can see the "
                f"arguments of a command: give it in {KEY_VARIABLE}"
            )
        try:
            host, port = parts.hostname, parts.port or 6333
        except ValueError as error:
            raise InvalidRequest(f"{address}: {error}; expected {_EXPECTED}") from None
        prefix, _, collection = unquote(parts.path).rstrip("/").rpartition("/")
        if not host or not re.fullmatch(r"[\w.-]+", collection):
            raise InvalidRequest(f"{address}: expected {_EXPECTED}")
        scheme = "https" if parts.scheme.lower().endswith("+https") else "http"
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{scheme}://{shown}:{port}{prefix}", collection, **_options(address))


def _options(address: str) -> dict[str, int]:
    options = {}
    for name, value in parse_qsl(urlsplit(address).query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise InvalidRequest(
                f"{address}: unknown option {name!r}; there are {', '.join(_OPTIONS)}"
            )
        if not value.isdecimal() or int(value) < 1:
            raise InvalidRequest(f"{address}: {name}={value} is no number from 1")
        options[_OPTIONS[name]] = int(value)
    return options


class RemoteEngine(Engine):
    """The collections of a server that a store consists of.

    Leases are measured by the server's clock, which its answers tell in their `Date` (RFC 9110,
    section 6.6.1), so that the clocks of the workers need not agree.

    Args:
        address: of the server and the collection.
        key: its API key, where it needs one.

    Raises:
        StoreError: the server cannot be reached, refuses the key, or is too old.
        InvalidRequest: the key cannot be sent.
    """

    def __init__(self, address: Address, key: str | None = None) -> None:
        self.name = f"the store {address.collection} in Qdrant at {address.url}"
        self._address = address
        self._key = key
        self._guard = ProcessGuard(self.name)
        fault = key and fault_of_key(key)
        if fault:
            raise InvalidRequest(f"the API key in {KEY_VARIABLE} cannot be sent: {fault}")
        with self.errors():
            self._ahead = self._meet() - monotonic()
            with warnings.catch_warnings():
                # About keys over plain HTTP: who gives such an address has a network to trust.
                warnings.simplefilter("ignore")
                self._client = QdrantClient(
                    url=address.url,
                    api_key=key,
                    timeout=_TIMEOUT_SECONDS,
                    prefer_grpc=address.grpc_port is not None,
                    grpc_port=address.grpc_port or 6334,
                    check_compatibility=False,
                )

    @classmethod
    def at(cls, address: str) -> Self:
        """Return the engine at `qdrant://...`, with the key of the environment or of `.env`."""
        return cls(Address.parse(address), _read_key())

    def open(self, part: str) -> Collection | None:
        name = self._name(part)
        with self.errors():
            is_there = self._client.collection_exists(name)
        return _Remote(self, self._client, name) if is_there else None

    def create(self, part: str, schema: Schema) -> Collection:
        name = self._name(part)
        with self.errors():
            if not self._client.collection_exists(name):
                self._create(name, schema)
            known = self._client.get_collection(name).payload_schema
            for field in set(schema.keywords) - known.keys():
                self._client.create_payload_index(
                    name, field, models.PayloadSchemaType.KEYWORD, wait=True
                )
        return _Remote(self, self._client, name)

    def now(self) -> float:
        return monotonic() + self._ahead

    def close(self) -> None:
        if self._guard.is_at_home():
            self._client.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Leave the block where the server does not do its part, with a StoreError."""
        self._guard.check()
        try:
            yield
        except UnexpectedResponse as error:
            advice = _ADVICE.get(error.status_code or 0)
            said = self._masked(error.content.decode(errors="replace")[:300])
            raise StoreError(
                f"{self.name}: the server answers {error.status_code}: {said}"
                + (f": {advice}" if advice else "")
            ) from None
        except (ResponseHandlingException, httpx.HTTPError) as error:
            cause = error.source if isinstance(error, ResponseHandlingException) else error
            raise StoreError(
                f"{self.name} cannot be reached: {self._masked(str(cause) or type(cause).__name__)}"
            ) from None
        except (ApiException, QdrantException, RpcError, ValueError) as error:
            raise StoreError(f"{self.name}: {self._masked(_describe(error))}") from None

    def _meet(self) -> float:
        """Return the server's time, after a look at who it is."""
        headers = {"api-key": self._key} if self._key else {}
        answer = httpx.get(self._address.url, headers=headers, timeout=_TIMEOUT_SECONDS)
        try:
            version = str(answer.raise_for_status().json()["version"])
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
            advice = _ADVICE.get(answer.status_code, "check the address")
            raise StoreError(
                f"{self._address.url} does not answer as Qdrant does "
                f"(status {answer.status_code}): {advice}"
            ) from None
        found = tuple(map(int, re.findall(r"\d+", version)[:2]))
        if found < _LEAST_VERSION:
            least = ".".join(map(str, _LEAST_VERSION))
            raise StoreError(f"{self.name} is Qdrant {version}: it needs {least} or newer")
        date = answer.headers.get("Date")
        return parsedate_to_datetime(date).timestamp() if date else time()

    def _name(self, part: str) -> str:
        return f"{self._address.collection}-{part}"

    def _create(self, name: str, schema: Schema) -> None:
        replicas = self._address.replicas
        try:
            self._client.create_collection(
                name,
                vectors_config={} if schema.dim is None else {_VECTORS: _vector_params(schema.dim)},
                # The ledger is small, and read and written one point at a time.
                shard_number=1 if schema.dim is None else self._address.shards,
                replication_factor=replicas,
                write_consistency_factor=None if replicas is None else replicas // 2 + 1,
                on_disk_payload=True,
                # The ledger has conditions on fields without an index, of one point at a time.
                strict_mode_config=models.StrictModeConfig(enabled=False)
                if schema.dim is None
                else None,
            )
        except (UnexpectedResponse, RpcError, ValueError):
            if not self._client.collection_exists(name):  # another worker has not created it
                raise

    def _masked(self, text: str) -> str:
        return mask_key(text, self._key) if self._key else text


class _Remote(Collection):
    """A collection of a server.

    Args:
        engine: turns errors of the client into those of a store.
        client: of the server.
        name: of the collection.
    """

    def __init__(self, engine: RemoteEngine, client: QdrantClient, name: str) -> None:
        self._engine = engine
        self._client = client
        self._name = name

    def put(self, points: Sequence[Point], only: Where | None = None) -> None:
        with self._engine.errors():
            for batch in batches(points):
                self._client.upsert(
                    self._name,
                    [_as_theirs(point) for point in batch],
                    wait=True,
                    # Through one replica: all of them decide on a condition in the same order.
                    ordering=None if only is None else models.WriteOrdering.STRONG,
                    update_filter=None if only is None else _filter(only),
                )

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        with self._engine.errors():
            found = self._client.retrieve(
                self._name,
                list(ids),
                with_payload=True,
                with_vectors=[_VECTORS] if vectors else False,
                # What one worker has written, the next one reads, from whichever replica.
                consistency=None if vectors else models.ReadConsistencyType.QUORUM,
            )
            return [_as_ours(one) for one in found]

    def select(
        self, where: Where, fields: Sequence[str] | None = None, *, vectors: bool = False
    ) -> Iterator[Point]:
        offset = None
        while True:
            with self._engine.errors():
                records, offset = self._client.scroll(
                    self._name,
                    _filter(where),
                    limit=_PAGES_AT_A_TIME if vectors else _ROWS_AT_A_TIME,
                    offset=offset,
                    with_payload=True if fields is None else list(fields),
                    with_vectors=[_VECTORS] if vectors else False,
                )
            yield from map(_as_ours, records)
            if offset is None:
                return

    def delete(self, where: Where) -> None:
        with self._engine.errors():
            self._client.delete(self._name, models.FilterSelector(filter=_filter(where)), wait=True)

    def count(self, where: Where) -> int:
        with self._engine.errors():
            return self._client.count(self._name, _filter(where), exact=True).count

    def values(self, field: str, where: Where) -> dict[str, int]:
        limit = _FIRST_VALUES
        while True:
            with self._engine.errors():
                found = self._client.facet(self._name, field, _filter(where), limit, exact=True)
            if len(found.hits) < limit:
                return {str(hit.value): hit.count for hit in found.hits}
            limit *= 10

    def nearest(
        self, query: MultiVector, limit: int, where: Where, fields: Sequence[str]
    ) -> list[Point]:
        quantization = models.QuantizationSearchParams(
            rescore=True, oversampling=oversampling(limit)
        )
        with self._engine.errors():
            found = self._client.query_points(
                self._name,
                query.tolist(),
                using=_VECTORS,
                query_filter=_filter(where),
                search_params=models.SearchParams(quantization=quantization),
                limit=limit,
                with_payload=list(fields),
            )
            return [_as_ours(one) for one in found.points]


def _read_key() -> str | None:
    try:
        return os.environ.get(KEY_VARIABLE) or dotenv_values(".env").get(KEY_VARIABLE) or None
    except (OSError, UnicodeError):
        raise InvalidRequest(f".env cannot be read for {KEY_VARIABLE}: it is no text") from None


def _vector_params(dim: int) -> models.VectorParams:
    return models.VectorParams(
        size=dim,
        distance=models.Distance.DOT,  # of unit vectors; COSINE would change their last bits
        datatype=models.Datatype.FLOAT16,
        on_disk=True,
        multivector_config=models.MultiVectorConfig(
            comparator=models.MultiVectorComparator.MAX_SIM
        ),
        hnsw_config=models.HnswConfigDiff(m=0),
        quantization_config=models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(always_ram=True)
        ),
    )


def _filter(where: Where) -> models.Filter:
    conditions: dict[bool, list[models.Condition]] = {False: [], True: []}
    for one in where:
        match = models.MatchAny(any=list(one.values))
        conditions[one.is_not].append(models.FieldCondition(key=one.field, match=match))
    return models.Filter(must=conditions[False], must_not=conditions[True])


def _as_theirs(point: Point) -> models.PointStruct:
    vectors: dict[str, Any] = {}
    if point.vectors is not None:
        vectors[_VECTORS] = point.vectors.tolist()
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _as_ours(found: models.Record | models.ScoredPoint) -> Point:
    stored = found.vector.get(_VECTORS) if isinstance(found.vector, dict) else None
    vectors = None if stored is None else np.array(stored, np.float32)
    return Point(str(found.id), found.payload or {}, vectors)


def _describe(error: Exception) -> str:
    # An error of gRPC shows all that it knows, over many lines.
    details = getattr(error, "details", None)
    return str(details()) if callable(details) else str(error)
