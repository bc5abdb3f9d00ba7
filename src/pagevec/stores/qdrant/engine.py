"""What a store needs of Qdrant, whether it is a server or the engine in this process."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pagevec.types import MultiVector

MOST_COMPONENTS = 1 << 20
"""Components of the multi-vector of one point: a server refuses more (Qdrant's
`MAX_MULTIVECTOR_FLATTENED_LEN`)."""

OVERSAMPLED = 512
"""Points that are scored again with their vectors, of those that sign bits bring up."""


@dataclass(frozen=True)
class Has:
    """A condition: a field of the payload, or one entry of its list, is one of `values`.

    Attributes:
        field: name of the field.
        values: that it may have.
        is_not: whether the opposite has to hold.
    """

    field: str
    values: tuple[str, ...]
    is_not: bool = False


Where = Sequence[Has]
"""Conditions that all hold."""


@dataclass(frozen=True, eq=False)
class Point:
    """A point of a collection.

    Attributes:
        id: a UUID.
        payload: JSON values.
        vectors: float32 (vectors, dim); None where it has none, or they were not asked for.
    """

    id: str
    payload: dict[str, Any] = field(default_factory=dict)
    vectors: MultiVector | None = None


@dataclass(frozen=True)
class Schema:
    """What a collection holds.

    Attributes:
        keywords: fields of the payload that conditions look at.
        dim: components of the vectors; None for a collection of payloads alone.
    """

    keywords: tuple[str, ...]
    dim: int | None = None


class Collection(Protocol):
    """A collection of points. Every method raises StoreError if Qdrant does not do its part."""

    def put(self, points: Sequence[Point], only: Where | None = None) -> None:
        """Insert or replace points, durably.

        Args:
            points: no id twice.
            only: which points may be replaced, decided by Qdrant in one step with the write;
                points that are not there are inserted in any case. None: all of them.
        """

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        """Return those points that there are, in any order, with or without their vectors."""

    def select(
        self, where: Where, fields: Sequence[str] | None = None, *, vectors: bool = False
    ) -> Iterator[Point]:
        """Yield the points of `where`.

        Args:
            where: conditions.
            fields: of the payload; None for all of it.
            vectors: whether they come with their vectors.
        """

    def delete(self, where: Where) -> None:
        """Delete the points of `where`, durably."""

    def count(self, where: Where) -> int:
        """Return how many points there are of `where`."""

    def values(self, field: str, where: Where) -> dict[str, int]:
        """Return the values of a field, each with the number of points that have it."""

    def nearest(
        self, query: MultiVector, limit: int, where: Where, fields: Sequence[str]
    ) -> list[Point]:
        """Return the points with the highest MaxSim, the best first.

        Sign bits choose at least `OVERSAMPLED` of them, which are ranked by their vectors.

        Args:
            query: float32 (vectors, dim).
            limit: how many points at most.
            where: conditions.
            fields: of the payload.
        """


class Engine(Protocol):
    """Qdrant, with the collections of one store.

    Attributes:
        name: names the store in errors.
    """

    name: str

    def open(self, part: str) -> Collection | None:
        """Return a collection of the store, or None if there is none of this name."""

    def create(self, part: str, schema: Schema) -> Collection:
        """Return a collection of the store, after creating what is missing of it."""

    def now(self) -> float:
        """Return the time in seconds by the clock that all who share the store go by."""

    def close(self) -> None:
        """Release files and connections."""


def batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield lists of points with at most `MOST_COMPONENTS` components each.

    As JSON, these are up to 20 MB; a server accepts 32 MiB in one request.
    """
    batch: list[Point] = []
    used = 0
    for point in points:
        components = 0 if point.vectors is None else point.vectors.size
        if batch and used + components > MOST_COMPONENTS:
            yield batch
            batch, used = [], 0
        batch.append(point)
        used += components
    if batch:
        yield batch


def oversampling(limit: int) -> float:
    """Return how many times `limit` points are scored again with their vectors."""
    return max(1.0, OVERSAMPLED / limit)
