"""The ledger of a store in Qdrant: points without vectors, in a collection of their own."""

import base64
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from time import monotonic, sleep
from typing import Any, TypeVar

from pagevec.errors import StoreError
from pagevec.stores.base import Ledger
from pagevec.stores.codec import FINGERPRINT_FORMAT, pack, read_fingerprint
from pagevec.stores.qdrant.engine import Collection, Engine, Has, Point, Schema
from pagevec.types import DocumentRecord, MultiVector

Result = TypeVar("Result")
# No index of `turn`: after a crash, Qdrant repeats what its log has, but a conditional write whose
# condition is not true any more, because the write itself is on disk already, leaves the index as
# it was. Conditions on what is not indexed look at the points themselves.
LEDGER = Schema(keywords=("kind", "name"))

_NAMES = uuid.UUID("8d0e54cf-3b5c-4c0e-9a8e-4b9a5f1c2f6d")  # any, but always the same
_NOBODY: tuple[Has, ...] = (Has("turn", ("",)),)
"""True of no point: what is there stays, and what is missing is inserted."""
_RECORD = tuple(one.name for one in fields(DocumentRecord))
_VECTORS = ("dim", "is_filled", "turn")
_ATTEMPTS = 100
_PAUSE = 0.02  # seconds
_SKEW = 10.0
"""Seconds that the clocks of workers may differ in what they take for the server's time."""


class QdrantLedger(Ledger):
    """Documents, leases and labels in Qdrant itself, beside the pages.

    They are in the engine and not in a file or a database beside it, because several machines may
    share the store, and whoever can reach the pages can then reach the ledger, under the same key,
    with the same replicas and in the same snapshots. Qdrant has no transactions, but it needs none
    for this: a record is one point, and a lease is taken by compare and swap. Each lease carries a
    random `turn`; a worker writes its own on the condition that the turn is still the one that it
    has read, which Qdrant decides in one step with the write (conditional updates, Qdrant 1.16),
    and reads afterwards whose turn it is. The embedded engine, which one process at a time uses,
    could do with less; it keeps the same ledger, so that there is one, tested on the real engine.

    Args:
        engine: whose clock measures leases.
        collection: holds the points.
    """

    def __init__(self, engine: Engine, collection: Collection) -> None:
        self._engine = engine
        self._collection = collection

    def record(self, document: str) -> DocumentRecord | None:
        def look(state: State) -> DocumentRecord | None:
            found = None if document in state.hidden else self._find("document", document)
            return None if found is None else _record(found)

        return self.steadily(look)

    def records(self) -> list[DocumentRecord]:
        def look(state: State) -> list[DocumentRecord]:
            seen = (one for one in self._all() if one.name not in state.hidden)
            return sorted(seen, key=lambda one: one.name)

        return self.steadily(look)

    def write(self, record: DocumentRecord) -> None:
        self._collection.put([_document_point(record)])

    def steadily(self, look: "Callable[[State], Result]") -> Result:
        """Return what `look` finds while the state stays as it is.

        Args:
            look: reads something; it is given the state, and called again if that has changed.
        """
        state = self.state()
        for _ in range(_ATTEMPTS):
            found = look(state)
            before, state = state, self.state()
            if before == state:
                break
        return found

    def forget(self, document: str) -> None:
        """Delete the record of a document, if there is one."""
        self._collection.delete((Has("kind", ("document",)), Has("name", (document,))))

    def lease(self, document: str, worker: str, seconds: float) -> bool:
        return self._lease("lease", document, worker, seconds)

    def release(self, document: str, worker: str) -> None:
        self._release("lease", document, worker)

    @contextmanager
    def alone(self, task: str, seconds: float, wait: float = 0) -> Iterator[Callable[[], object]]:
        """Do something that one process at a time does.

        Args:
            task: what is done.
            seconds: how long others keep away, unless that is renewed.
            wait: how long to wait for another process, in seconds.

        Yields:
            What renews it.

        Raises:
            StoreError: another process is at it.
        """
        worker, end = str(uuid.uuid4()), monotonic() + wait
        while not self._lease("task", task, worker, seconds):
            if monotonic() >= end:
                raise StoreError(
                    f"another process has to {task} in {self._engine.name}: try again later"
                )
            sleep(_PAUSE)
        try:
            yield lambda: self._lease("task", task, worker, seconds)
        finally:
            self._release("task", task, worker)

    def _lease(self, kind: str, name: str, worker: str, seconds: float) -> bool:
        now = self._engine.now()
        held = self._find(kind, name)
        if held is not None and held["worker"] != worker and _is_running(held, now):
            return False
        turn = str(uuid.uuid4())
        self._write(
            kind,
            name,
            only=_NOBODY if held is None else (Has("turn", (held["turn"],)),),
            worker=worker,
            ends=now + seconds,
            seconds=seconds,
            turn=turn,
        )
        won = self._find(kind, name)
        return won is not None and won["turn"] == turn

    def _release(self, kind: str, name: str, worker: str) -> None:
        held = self._find(kind, name)
        if held is not None and held["worker"] == worker:
            of_it = (Has("kind", (kind,)), Has("name", (name,)))
            self._collection.delete((*of_it, Has("turn", (held["turn"],))))

    def labels(self) -> dict[str, str]:
        found = self._collection.select((Has("kind", ("label",)),))
        return {point.payload["name"]: point.payload["folder"] for point in found}

    def set_label(self, label: str, folder: str) -> None:
        self._write("label", label, folder=folder)

    def state(self) -> "State":
        """Return what decides which pages are to be seen."""
        ids = _id("vectors", ""), _id("rename", "")
        found = {point.id: point.payload for point in self._collection.get(ids)}
        vectors, rename = (found.get(one) for one in ids)
        return State(
            None if vectors is None else Vectors(**{one: vectors[one] for one in _VECTORS}),
            None
            if rename is None
            else Rename(json.loads(rename["names"]), rename["is_switched"], rename["turn"]),
        )

    def set_vectors(self, dim: int, *, is_filled: bool) -> None:
        """Record the dimension of the pages to be seen, and whether there may be any."""
        turn = str(uuid.uuid4())
        self._write("vectors", "", dim=dim, is_filled=is_filled, turn=turn)

    def fingerprint(self) -> MultiVector | None:
        """Return the fingerprint of the pages' model, float32 (vectors, dim), if one is saved."""
        found = self._find("fingerprint", "")
        if found is None:
            return None
        return read_fingerprint(base64.b64decode(found["vectors"]), found["dim"])

    def save_fingerprint(self, vectors: MultiVector, *, replace: bool) -> None:
        """Save a fingerprint, unless there is one that shall not be replaced."""
        packed = base64.b64encode(pack(vectors, FINGERPRINT_FORMAT)).decode()
        only = None if replace else _NOBODY
        self._write("fingerprint", "", only=only, vectors=packed, dim=vectors.shape[1])

    def condensing(self) -> float | None:
        """Return the threshold at which near-duplicate vectors are kept once, if one is saved."""
        found = self._find("condensing", "")
        return None if found is None else float(found["threshold"])

    def save_condensing(self, threshold: float) -> None:
        """Save the threshold, in place of the one that is there."""
        self._write("condensing", "", threshold=threshold)

    def known(self, documents: Iterable[str]) -> set[str]:
        """Return those of `documents` that have a record."""
        found = self._collection.get([_id("document", name) for name in documents])
        return {point.payload["name"] for point in found}

    def begin_rename(self, names: Mapping[str, str]) -> None:
        """Record that documents are being renamed; their new names are hidden from now on.

        Args:
            names: the new name for each old name.
        """
        self._collection.put([_rename_point(names, is_switched=False)])

    def switch_rename(self, names: Mapping[str, str]) -> None:
        """Show the new names instead of the old ones, which are hidden from now on.

        This is one write to one shard, records included: documents are seen under all their old
        names, or all their new ones.
        """
        records = [replace(one, name=names[one.name]) for one in self._all() if one.name in names]
        written = [_document_point(one) for one in records]
        self._collection.put([*written, _rename_point(names, is_switched=True)])

    def end_rename(self, names: Mapping[str, str]) -> None:
        """Delete the records under the old names, and end the rename."""
        self._collection.delete((Has("kind", ("document",)), Has("name", tuple(names))))
        self._collection.delete((Has("kind", ("rename",)),))

    def _all(self) -> list[DocumentRecord]:
        found = self._collection.select((Has("kind", ("document",)),))
        return [_record(point.payload) for point in found]

    def _find(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((point.payload for point in self._collection.get([_id(kind, name)])), None)

    def _write(
        self, kind: str, name: str, *, only: tuple[Has, ...] | None = None, **payload: Any
    ) -> None:
        point = Point(_id(kind, name), {"kind": kind, "name": name, **payload})
        self._collection.put([point], only)


@dataclass(frozen=True)
class Rename:
    """A rename of documents on its way.

    Pages are copied under their new names, which are hidden meanwhile. Then both are switched, and
    what has the old names is deleted.

    Attributes:
        names: the new name for each old name.
        is_switched: whether the new names are the ones to be seen.
        turn: another one at each step.
    """

    names: dict[str, str]
    is_switched: bool
    turn: str


@dataclass(frozen=True)
class Vectors:
    """The vectors of a store: pages of each dimension have a collection, one of which is seen.

    Attributes:
        dim: their dimension.
        is_filled: whether pages have been added; they may be gone again.
        turn: another one at each change.
    """

    dim: int
    is_filled: bool
    turn: str


@dataclass(frozen=True)
class State:
    """What decides which pages are to be seen.

    Attributes:
        vectors: the vectors of the pages; None before the first page.
        rename: a rename that has begun and not ended, if there is one.
    """

    vectors: Vectors | None
    rename: Rename | None

    @property
    def dim(self) -> int | None:
        """Dimension of the pages to be seen; None before the first page."""
        return None if self.vectors is None else self.vectors.dim

    @property
    def hidden(self) -> frozenset[str]:
        """Names of documents that are not to be seen."""
        if self.rename is None:
            return frozenset()
        names = self.rename.names
        return frozenset(names if self.rename.is_switched else names.values())


def _document_point(record: DocumentRecord) -> Point:
    return Point(_id("document", record.name), {"kind": "document", **asdict(record)})


def _rename_point(names: Mapping[str, str], *, is_switched: bool) -> Point:
    payload = {
        "kind": "rename",
        "names": json.dumps(dict(names)),
        "is_switched": is_switched,
        "turn": str(uuid.uuid4()),
    }
    return Point(_id("rename", ""), payload)


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_NAMES, f"{kind} {name}"))


def _is_running(lease: Mapping[str, Any], now: float) -> bool:
    # One that would end later than one taken now is of before the clock was set back.
    return bool(now < lease["ends"] <= now + lease["seconds"] + _SKEW)


def _record(payload: Mapping[str, Any]) -> DocumentRecord:
    return DocumentRecord(**{name: payload[name] for name in _RECORD})
