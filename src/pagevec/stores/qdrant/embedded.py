"""Qdrant's engine in this process (qdrant-edge): a folder with a shard for each collection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from qdrant_edge import (
    BinaryQuantizationConfig,
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    FacetRequest,
    FieldCondition,
    Filter,
    HnswIndexConfig,
    KeywordIndexParams,
    MatchAny,
    Memory,
    MultiVectorComparator,
    MultiVectorConfig,
    QuantizationSearchParams,
    Query,
    QueryRequest,
    Record,
    ScoredPoint,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
    VectorStorageDatatype,
)
from qdrant_edge import Point as EdgePoint

from pagevec.errors import StoreError
from pagevec.stores.base import ProcessGuard
from pagevec.stores.qdrant.engine import (
    Collection,
    Engine,
    Point,
    Schema,
    Where,
    oversampling,
)
from pagevec.types import MultiVector

if TYPE_CHECKING:
    from qdrant_edge import ConditionType

FILE = "pages.qdrant"
"""An empty file that marks the folder of a store."""

_VECTORS = "page"
_SHARD_FILE = "edge_config.json"
_NO_VECTORS = EdgeVectorParams(size=1, distance=Distance.Dot)
"""A shard must have vectors of some kind; those of a collection of payloads are never filled."""
_ROWS_AT_A_TIME, _PAGES_AT_A_TIME = 256, 16
_FIRST_VALUES = 1000
_IN_USE = "WouldBlock"  # in the engine's words for the lock on a shard's log


class EmbeddedEngine(Engine):
    """The shards in a folder.

    The engine lets one process at a time use a folder. Within it, several stores share what is
    open: use `share`.

    Args:
        folder: of the store, which exists.
    """

    _open: ClassVar[dict[Path, "EmbeddedEngine"]] = {}
    _lock = Lock()

    def __init__(self, folder: Path) -> None:
        self.name = f"the store {folder}"
        self._folder = folder
        self._guard = ProcessGuard(self.name)
        self._users = 0
        self._shards: dict[str, _Shard] = {}

    @classmethod
    def share(cls, folder: Path) -> "EmbeddedEngine":
        """Return the engine of a folder, which lasts until all who share it have closed it."""
        with cls._lock:
            place = folder.resolve()
            engine = cls._open.get(place)
            if engine is None or not engine._guard.is_at_home():
                engine = cls._open[place] = cls(folder)
            engine._users += 1
            return engine

    def open(self, part: str) -> Collection | None:
        is_there = (self._folder / part / _SHARD_FILE).exists()
        return self._shard(part, None) if is_there else None

    def create(self, part: str, schema: Schema) -> Collection:
        shard = self._shard(part, schema)
        shard.index(schema.keywords)
        return shard

    def now(self) -> float:
        return monotonic()  # which all processes of a machine share, and nobody sets

    def close(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or not self._guard.is_at_home():
                return
            self._open.pop(self._folder.resolve(), None)
            for shard in self._shards.values():
                shard.close()

    def _shard(self, part: str, schema: Schema | None) -> "_Shard":
        with self._lock:
            if part not in self._shards:
                place = self._folder / part
                self._shards[part] = _Shard(self.name, place, schema, self._guard)
            return self._shards[part]


class _Shard(Collection):
    """A shard, which is opened at once and closed with its engine.

    Args:
        store: names the store in errors.
        place: folder of the shard.
        schema: creates what is missing; None: the shard is there.
        guard: of the process that opens it.
    """

    def __init__(self, store: str, place: Path, schema: Schema | None, guard: ProcessGuard) -> None:
        self._store = store
        self._guard = guard
        with self._errors():
            if schema is None:
                self._shard = EdgeShard.load(str(place))
                return
            place.mkdir(parents=True, exist_ok=True)
            (place.parent / FILE).touch()
            self._shard = EdgeShard.load(str(place), _config(schema))

    def index(self, fields: Sequence[str]) -> None:
        """Create those indexes of keywords that are missing."""
        with self._errors():
            for field in set(fields) - self._shard.info().payload_schema.keys():
                self._shard.update(UpdateOperation.create_field_index(field, KeywordIndexParams()))
            self._shard.flush()

    def put(self, points: Sequence[Point], only: Where | None = None) -> None:
        with self._errors():
            made = [_as_theirs(point) for point in points]
            condition = None if only is None else _filter(only)
            # Logged as one operation: after a crash all of it is applied, or nothing.
            self._shard.update(UpdateOperation.upsert_points(made, condition))
            self._shard.flush()

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        with self._errors():
            names = [_VECTORS] if vectors else False
            return [_as_ours(one) for one in self._shard.retrieve(list(ids), True, names)]

    def select(
        self, where: Where, fields: Sequence[str] | None = None, *, vectors: bool = False
    ) -> Iterator[Point]:
        offset = None
        while True:
            with self._errors():
                records, offset = self._shard.scroll(
                    ScrollRequest(
                        offset=offset,
                        limit=_PAGES_AT_A_TIME if vectors else _ROWS_AT_A_TIME,
                        filter=_filter(where),
                        with_payload=True if fields is None else list(fields),
                        with_vector=[_VECTORS] if vectors else False,
                    )
                )
            yield from map(_as_ours, records)
            if offset is None:
                return

    def delete(self, where: Where) -> None:
        with self._errors():
            self._shard.update(UpdateOperation.delete_points_by_filter(_filter(where)))
            self._shard.flush()

    def count(self, where: Where) -> int:
        with self._errors():
            return self._shard.count(CountRequest(exact=True, filter=_filter(where)))

    def values(self, field: str, where: Where) -> dict[str, int]:
        limit = _FIRST_VALUES
        while True:
            with self._errors():
                hits = self._shard.facet(FacetRequest(field, limit, True, _filter(where))).hits
            if len(hits) < limit:
                return {str(hit.value): hit.count for hit in hits}
            limit *= 10

    def nearest(
        self, query: MultiVector, limit: int, where: Where, fields: Sequence[str]
    ) -> list[Point]:
        quantization = QuantizationSearchParams(rescore=True, oversampling=oversampling(limit))
        request = QueryRequest(
            limit=limit,
            query=Query.Nearest(query.tolist(), using=_VECTORS),
            with_payload=list(fields),
            filter=_filter(where),
            params=SearchParams(quantization=quantization),
        )
        with self._errors():
            return [_as_ours(one) for one in self._shard.query(request)]

    def close(self) -> None:
        """Write everything to the disk, and end the lock on the folder."""
        with self._errors():
            self._shard.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        self._guard.check()
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot use {self._store}: {error.strerror}") from error
        except BaseException as error:
            # The engine raises plain exceptions, and panics that are not even that.
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            if _IN_USE in str(error):
                raise StoreError(
                    f"cannot use {self._store}: another process has it open, and Qdrant's engine "
                    "lets one process at a time use a folder. Wait for it, or share a server: "
                    "qdrant://host:6333/NAME"
                ) from error
            raise StoreError(f"cannot use {self._store}: {error}") from error


def _config(schema: Schema) -> EdgeConfig:
    if schema.dim is None:
        return EdgeConfig(vectors={"none": _NO_VECTORS})
    vectors = EdgeVectorParams(
        size=schema.dim,
        distance=Distance.Dot,  # of unit vectors; Cosine would change their last bits
        memory=Memory.Cold,
        multivector_config=MultiVectorConfig(MultiVectorComparator.MaxSim),
        datatype=VectorStorageDatatype.Float16,
        hnsw_config=HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
        quantization_config=BinaryQuantizationConfig(memory=Memory.Cached),
    )
    return EdgeConfig(vectors={_VECTORS: vectors})


def _filter(where: Where) -> Filter:
    conditions: dict[bool, list[ConditionType]] = {False: [], True: []}
    for one in where:
        match = MatchAny(list(one.values))
        conditions[one.is_not].append(FieldCondition(one.field, match))
    return Filter(must=conditions[False], must_not=conditions[True])


def _as_theirs(point: Point) -> EdgePoint:
    vectors = {} if point.vectors is None else {_VECTORS: point.vectors.tolist()}
    return EdgePoint(point.id, vectors, point.payload)


def _as_ours(found: Record | ScoredPoint) -> Point:
    stored = found.vector.get(_VECTORS) if isinstance(found.vector, dict) else None
    vectors = None if stored is None else np.array(stored, np.float32)
    return Point(str(found.id), found.payload or {}, vectors)
