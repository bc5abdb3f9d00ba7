"""An index in memory of the pages' sign bits, which finds the pages nearest to a query.

The bits are stored in planes, as `probe` compares them. Planes are processed in blocks of about 256
pages, which keeps intermediate results in the CPU's cache and all cores busy.
"""

from collections.abc import Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pagevec.machine import thread_pool
from pagevec.stores.probe import PackedBits, Probe, as_words, choose_comparison
from pagevec.types import MultiVector

SCAN_FROM = 2000
"""Pages from which on a store narrows a search by sign bits; fewer are all scored exactly.

Stores read it at each search.
"""
BLOCK = 256
"""Pages that a thread compares at a time."""

_Number = TypeVar("_Number", np.uint64, np.int64)
_GONE = -1
_FEW_ROWS = 1 << 16


class BitIndex:
    """The sign bits of pages, each page under a number of the caller's choice. Thread-safe.

    A replaced or removed page leaves a hole; holes are closed once they make up half of the rows.

    Args:
        dim: components of each vector.
    """

    def __init__(self, dim: int) -> None:
        self._words = -(-dim // 64)
        self._lock = Lock()
        self._used = self._holes = 0  # pages, holes included; rows in holes
        self._planes = np.empty((self._words, 0), np.uint64)
        self._pages = np.empty(0, np.int64)
        self._starts = np.zeros(1, np.int64)
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def put(self, pages: Sequence[int], bits: Sequence[PackedBits]) -> None:
        """Add or replace pages.

        Args:
            pages: their numbers, from 0; of equal numbers the last one counts.
            bits: for each page its sign bits. A page without vectors would never be among the
                best, so it is left out.
        """
        latest = dict(zip(pages, bits, strict=True))
        filled = {page: rows for page, rows in latest.items() if len(rows)}
        with self._lock:
            self._forget(latest)
            if filled:
                self._append(list(filled), list(filled.values()))
            self._close_holes()

    def remove(self, pages: Sequence[int]) -> None:
        """Remove pages, ignoring those that are not in the index."""
        with self._lock:
            self._forget(pages)
            self._close_holes()

    def best(self, query: MultiVector, limit: int) -> list[int]:
        """Return the pages that are nearest to a query.

        Args:
            query: float32 (vectors, dim).
            limit: how many pages to return at most.

        Returns:
            Numbers of pages, the nearest first.
        """
        # One query at a time, because each uses all cores.
        with self._lock:
            distances = self._distances(Probe.of(query))
            alive = np.flatnonzero(self._pages[: self._used] != _GONE)
            nearest = alive[smallest(distances[alive], limit)]
            found: list[int] = self._pages[nearest].tolist()
        return found

    def _distances(self, probe: Probe) -> NDArray[np.float32]:
        distances = np.zeros(self._used, np.float32)
        compare = choose_comparison(self._used)

        def fill(first: int) -> None:
            last = min(first + BLOCK, self._used)
            starts = self._starts[first : last + 1]
            planes = self._planes[:, starts[0] : starts[-1]]
            distances[first:last] = compare(planes, starts[:-1] - starts[0], probe)

        list(thread_pool("pagevec-bits").map(fill, range(0, self._used, BLOCK)))
        return distances

    def _append(self, pages: list[int], bits: list[PackedBits]) -> None:
        first, row = self._used, int(self._starts[self._used])
        ends = row + np.cumsum([len(rows) for rows in bits])
        self._used += len(pages)
        self._planes = _grow(self._planes, int(ends[-1]))
        self._pages = _grow(self._pages, self._used)
        self._starts = _grow(self._starts, self._used + 1)
        self._planes[:, row : ends[-1]] = as_words(np.concatenate(bits), self._words).T
        self._pages[first : self._used] = pages
        self._starts[first + 1 : self._used + 1] = ends
        self._places.update(zip(pages, range(first, self._used), strict=True))

    def _forget(self, pages: Sequence[int] | dict[int, PackedBits]) -> None:
        for page in pages:
            place = self._places.pop(page, None)
            if place is not None:
                self._pages[place] = _GONE
                self._holes += int(self._starts[place + 1] - self._starts[place])

    def _close_holes(self) -> None:
        rows = int(self._starts[self._used])
        if self._holes < _FEW_ROWS or 2 * self._holes < rows:
            return
        lengths = np.diff(self._starts[: self._used + 1])
        alive = self._pages[: self._used] != _GONE
        self._planes = self._planes[:, :rows][:, np.repeat(alive, lengths)]
        self._pages = self._pages[: self._used][alive]
        self._starts = np.cumsum([0, *lengths[alive]], dtype=np.int64)
        self._used, self._holes = len(self._pages), 0
        self._places = {page: place for place, page in enumerate(self._pages.tolist())}


def smallest(distances: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Return the positions of the `limit` smallest distances, in ascending order."""
    if limit < len(distances):
        chosen = np.argpartition(distances, limit)[:limit]
    else:
        chosen = np.arange(len(distances))
    order: NDArray[np.int64] = chosen[np.argsort(distances[chosen], kind="stable")]
    return order


def _grow(values: NDArray[_Number], needed: int) -> NDArray[_Number]:
    """Return `values` with room for `needed` entries on its last axis; doubling keeps this rare."""
    if needed <= values.shape[-1]:
        return values
    larger = np.empty((*values.shape[:-1], max(needed, 2 * values.shape[-1])), values.dtype)
    larger[..., : values.shape[-1]] = values
    return larger
