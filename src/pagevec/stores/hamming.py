"""An index in memory of the pages' sign bits, which finds the pages nearest to a query.

A query is compared by the signs of those of its components that are large: the others say little,
and where a page's bit differs from them nothing is lost. Measured on pages with the spread of real
ones, 6,000 of them: the ten best pages by exact MaxSim are among the first 200 in 0.97 of all cases
with all signs, in 0.99 with these, and in 0.995 with the numbers themselves, which take four times
as long.

The bits are stored in planes: plane k holds the k-th 64-bit word of every vector, page after page.
XOR and bit count over whole planes take a few ms for thousands of pages. Planes are processed in
blocks of about 256 pages, which keeps intermediate results in the CPU's cache and all cores busy.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pagevec.machine import thread_pool, usable_cores
from pagevec.types import MultiVector

PackedBits = NDArray[np.uint8]
"""Sign bits of a multi-vector: uint8 (vectors, `sign_bytes(dim)`), as `wire.quantize` packs them.

Bits beyond the dimension are 0 in all of them, and so change no distance.
"""

SCAN_FROM = 2000
"""Pages from which on a store narrows a search by sign bits; fewer are all scored exactly.

Stores read it at each search.
"""
BLOCK = 256
"""Pages that a thread compares at a time."""

_AHEAD = 2
"""Blocks for each core that are read before their distances are needed."""
_IGNORED = 0.4
"""Share of a query vector's components, the smallest ones, whose signs are not compared."""

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

        A page's distance is MaxSim on sign bits: the sum over the query's vectors of the smallest
        Hamming distance to any vector of the page, each weighted by the mean size of the components
        that are compared.

        Args:
            query: float32 (vectors, dim).
            limit: how many pages to return at most.

        Returns:
            Numbers of pages, the nearest first.
        """
        # One query at a time, because each uses all cores.
        with self._lock:
            distances = self._distances(_Probe.of(query))
            alive = np.flatnonzero(self._pages[: self._used] != _GONE)
            nearest = alive[smallest(distances[alive], limit)]
            found: list[int] = self._pages[nearest].tolist()
        return found

    def _distances(self, query: "_Probe") -> NDArray[np.float32]:
        distances = np.zeros(self._used, np.float32)

        def fill(first: int) -> None:
            last = min(first + BLOCK, self._used)
            starts = self._starts[first : last + 1]
            planes = self._planes[:, starts[0] : starts[-1]]
            distances[first:last] = _block_distances(planes, starts[:-1] - starts[0], query)

        list(thread_pool("pagevec-bits").map(fill, range(0, self._used, BLOCK)))
        return distances

    def _append(self, pages: list[int], bits: list[PackedBits]) -> None:
        first, row = self._used, int(self._starts[self._used])
        ends = row + np.cumsum([len(rows) for rows in bits])
        self._used += len(pages)
        self._planes = _grow(self._planes, int(ends[-1]))
        self._pages = _grow(self._pages, self._used)
        self._starts = _grow(self._starts, self._used + 1)
        self._planes[:, row : ends[-1]] = _as_words(np.concatenate(bits), self._words).T
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


def compare(query: MultiVector, blocks: Iterable[Sequence[PackedBits]]) -> NDArray[np.float32]:
    """Return the distance of each page to a query, as `BitIndex.best` defines it.

    Args:
        query: float32 (vectors, dim).
        blocks: sign bits of some pages at a time, about `BLOCK` of them, each with one vector at
            least. The next ones are read while other threads compare those before.

    Returns:
        Distances, float32 (pages,), over all blocks.
    """
    probe, threads = _Probe.of(query), thread_pool("pagevec-bits")
    distances, ahead = [np.empty(0, np.float32)], deque[Future[NDArray[np.float32]]]()
    for block in blocks:
        ahead.append(threads.submit(_compare_pages, probe, block))
        if len(ahead) > _AHEAD * usable_cores():
            distances.append(ahead.popleft().result())
    distances += [one.result() for one in ahead]
    return np.concatenate(distances)


@dataclass(frozen=True, eq=False)
class _Probe:
    """A query as bits are compared with it.

    Attributes:
        signs: words of the signs of its vectors, (vectors, words).
        masks: the bits that are compared.
        weights: of a difference in each vector, float32 (vectors,).
    """

    signs: NDArray[np.uint64]
    masks: NDArray[np.uint64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, query: MultiVector) -> "_Probe":
        sizes, words = np.abs(query), -(-query.shape[1] // 64)
        place = int(_IGNORED * query.shape[1])
        compared = sizes >= np.partition(sizes, place, axis=1)[:, place : place + 1]
        signs, masks = (_as_words(np.packbits(one, axis=1), words) for one in (query > 0, compared))
        return cls(signs, masks, np.mean(sizes, axis=1, where=compared, dtype=np.float32))


def _as_words(bits: PackedBits, words: int) -> NDArray[np.uint64]:
    """Return bits as words (vectors, words), padded with equal zeros."""
    padded = np.zeros((len(bits), 8 * words), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view(np.uint64)


def _compare_pages(probe: _Probe, pages: Sequence[PackedBits]) -> NDArray[np.float32]:
    if not pages:
        return np.empty(0, np.float32)
    planes = np.ascontiguousarray(_as_words(np.concatenate(pages), probe.signs.shape[1]).T)
    starts = np.cumsum([0, *map(len, pages[:-1])])
    return _block_distances(planes, starts, probe)


def _block_distances(
    planes: NDArray[np.uint64], starts: NDArray[np.int64], query: _Probe
) -> NDArray[np.float32]:
    """Return the distance of each page in a block.

    Args:
        planes: words of the block's vectors, (words, rows).
        starts: the row at which each page begins, (pages,).
        query: the query.

    Returns:
        Distances, float32 (pages,).
    """
    different = np.empty(planes.shape[1], np.uint64)
    count = np.empty(planes.shape[1], np.uint8)
    # A sum of up to 255 bits fits into a byte, and bytes are fastest.
    total = np.empty(planes.shape[1], np.min_scalar_type(64 * len(planes)))
    distances = np.zeros(len(starts), np.float32)
    for signs, masks, weight in zip(query.signs, query.masks, query.weights, strict=True):
        total.fill(0)
        for plane, sign, mask in zip(planes, signs, masks, strict=True):
            np.bitwise_xor(plane, sign, out=different)
            np.bitwise_and(different, mask, out=different)
            np.add(total, np.bitwise_count(different, out=count), out=total)
        distances += weight * np.minimum.reduceat(total, starts)
    return distances


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
