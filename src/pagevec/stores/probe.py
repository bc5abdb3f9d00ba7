"""A query as pages' sign bits are compared with it.

A query is compared by the signs of those of its components that are large: the others say little,
and where a page's bit differs from them nothing is lost. Measured on pages with the spread of real
ones, 6,000 of them: the ten best pages by exact MaxSim are among the first 200 in 0.97 of all cases
with all signs, in 0.99 with these, and in 0.995 with the numbers themselves, which take four times
as long.

Bits are compared in planes: plane k holds the k-th 64-bit word of every vector, page after page.
"""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pagevec.machine import thread_pool, usable_cores
from pagevec.stores.condense import condense
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

PackedBits = NDArray[np.uint8]
"""Sign bits of a multi-vector: uint8 (vectors, `sign_bytes(dim)`), as `wire.quantize` packs them.

Bits beyond the dimension are 0 in all of them, and so change no distance.
"""

Words = NDArray[np.uint64]
Starts = NDArray[np.int64]
Distances = NDArray[np.float32]

_AHEAD = 4
"""Blocks for each core that are read before their distances are needed."""
_WORDS_AT_ONCE = 1 << 17
"""Words of vectors that numpy compares at a time: 2 MiB with the results, which fit into a cache.
Fewer take longer: at the end of each step of numpy a thread waits for the others."""
_POOLED = 0.8
"""The cosine from which on vectors of a query are pooled."""
_IGNORED = 0.4
"""Share of a query vector's components, the smallest ones, whose signs are not compared."""


@dataclass(frozen=True, eq=False)
class Probe:
    """What a query's vectors are compared by. The next two have shape (vectors, words).

    Attributes:
        signs: words of their signs.
        masks: the bits that are compared.
        weights: of a difference in each vector, float32 (vectors,): the mean size of the components
            that are compared.
    """

    signs: Words
    masks: Words
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, query: MultiVector) -> "Probe":
        """Return the probe of a query, float32 (vectors, dim), whose vectors are pooled."""
        query = pool_similar(query)
        sizes, words = np.abs(query), -(-query.shape[1] // 64)
        place = int(_IGNORED * query.shape[1])
        compared = sizes >= np.partition(sizes, place, axis=1)[:, place : place + 1]
        signs, masks = (as_words(np.packbits(one, axis=1), words) for one in (query > 0, compared))
        return cls(signs, masks, np.mean(sizes, axis=1, where=compared, dtype=np.float32))


def pool_similar(query: MultiVector) -> MultiVector:
    """Return the sums of a query's similar vectors, float32 (fewer vectors, dim).

    They have almost the same best vector in a page. Candidates are as good for half of the work:
    of 12 queries and 100,000 pages, the ten best come as early as they do for all vectors, in the
    order by lists and in that by bits (in the middle, and the last ones earlier).

    Args:
        query: float32 (vectors, dim), rows of unit length.
    """
    kept, stand_ins = condense(query, _POOLED)
    pooled = np.zeros((len(kept), query.shape[1]), np.float32)
    np.add.at(pooled, stand_ins, query)
    return pooled


class Comparison(Protocol):
    """Compares a probe with pages.

    A page's distance is MaxSim on sign bits: the sum over the query's vectors of the smallest
    weighted Hamming distance to any vector of the page.
    """

    def __call__(self, planes: Words, starts: Starts, probe: Probe) -> Distances:
        """Return the distance of each page.

        Args:
            planes: words of the pages' vectors, (words, rows).
            starts: the row at which each page begins, (pages,); each has one row at least.
            probe: the query.

        Returns:
            Distances, float32 (pages,): the same ones, whatever compares.
        """


class Block(Protocol):
    """The sign bits of some pages, each of one vector at least."""

    @property
    def lengths(self) -> Sequence[int]:
        """How many vectors each page has."""

    def fill(self, joined: PackedBits) -> None:
        """Write the bits, page after page.

        Args:
            joined: takes them, uint8 (vectors, bytes): whole words, of which the bytes beyond the
                dimension are 0.
        """


@dataclass(frozen=True, eq=False)
class ReadBlock:
    """Bits that are in memory.

    Attributes:
        bits: of each page.
    """

    bits: Sequence[PackedBits]

    @property
    def lengths(self) -> Sequence[int]:
        return [len(rows) for rows in self.bits]

    def fill(self, joined: PackedBits) -> None:
        np.concatenate(self.bits, out=joined[:, : self.bits[0].shape[1]])


def compare_blocks(query: MultiVector, pages: int, blocks: Iterable[Block]) -> Distances:
    """Return the distance of each page to a query.

    Args:
        query: float32 (vectors, dim).
        pages: about how many there are.
        blocks: of pages. The next ones are taken while other threads read and compare those before.

    Returns:
        Distances, float32 (pages,), over all blocks.
    """
    probe, compare = Probe.of(query), choose_comparison(pages)
    spare, most = list[PackedBits](), _AHEAD * usable_cores()

    def measure(block: Block) -> Distances:
        starts = np.cumsum([0, *block.lengths], dtype=np.int64)
        rows = int(starts[-1])
        # Memory of its own for each block would be given back and zeroed again each time.
        joined = spare.pop() if spare else np.empty((0, 0), np.uint8)
        if len(joined) < rows:
            joined = np.zeros((2 * rows, 8 * probe.signs.shape[1]), np.uint8)
        block.fill(joined[:rows])
        distances = compare(joined[:rows].view(np.uint64).T, starts[:-1], probe)
        spare.append(joined)
        return distances

    threads, ahead = thread_pool("pagevec-bits"), deque[Future[Distances]]()
    distances = [np.empty(0, np.float32)]
    for block in blocks:
        if block.lengths:
            ahead.append(threads.submit(measure, block))
        if len(ahead) > most:
            distances.append(ahead.popleft().result())
    return np.concatenate([*distances, *(one.result() for one in ahead)])


def as_words(bits: PackedBits, words: int) -> Words:
    """Return bits as words (vectors, words), padded with equal zeros."""
    if bits.shape[1] == 8 * words:
        return np.ascontiguousarray(bits).view(np.uint64)
    padded = np.zeros((len(bits), 8 * words), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view(np.uint64)


def compare_in_numpy(planes: Words, starts: Starts, probe: Probe) -> Distances:
    """Compare as `Comparison` says: as many pages at a time as stay in the core's cache."""
    _, firsts = np.unique(starts // max(1, _WORDS_AT_ONCE // len(planes)), return_index=True)
    bounds, parts = [*starts[firsts].tolist(), planes.shape[1]], np.split(starts, firsts[1:])
    return np.concatenate(
        [
            _compare_at_once(np.ascontiguousarray(planes[:, row:end]), pages - row, probe)
            for (row, end), pages in zip(pairwise(bounds), parts, strict=True)
        ]
    )


def _compare_at_once(planes: Words, starts: Starts, probe: Probe) -> Distances:
    different = np.empty_like(planes)
    # A sum of up to 255 bits fits into a byte, and bytes are fastest.
    total, *others = counts = np.empty(planes.shape, np.min_scalar_type(64 * len(planes)))
    distances = np.zeros(len(starts), np.float32)
    columns = probe.signs[:, :, np.newaxis], probe.masks[:, :, np.newaxis]
    for signs, masks, weight in zip(*columns, probe.weights, strict=True):
        np.bitwise_xor(planes, signs, out=different)
        np.bitwise_and(different, masks, out=different)
        np.bitwise_count(different, out=counts)
        for count in others:
            np.add(total, count, out=total)
        distances += weight * np.minimum.reduceat(total, starts)
    return distances


class _Choice:
    """Chooses between numpy and machine code, which has to be loaded first.

    Machine code takes a seventh of the time, but 130 MB and half a second once in each process (and
    two more on a machine where it was not compiled yet): as long as comparing some 15,000 pages in
    numpy.
    So it is loaded once a process has compared so many, and a command on a small store never does.
    """

    _PAYS_AFTER = 1 << 14

    def __init__(self) -> None:
        self._lock = Lock()
        self._compared = 0
        self._compiled: Comparison | None = None
        self._is_there = find_spec("numba") is not None

    def comparison(self, pages: int) -> Comparison:
        """Return what compares so many pages best."""
        with self._lock:
            self._compared += pages
            if self._is_there and self._compiled is None and self._compared >= self._PAYS_AFTER:
                self._load()
            return self._compiled or compare_in_numpy

    def can_compile(self) -> bool:
        """Whether there is what compiles, and it was not found to fail."""
        return self._is_there

    def _load(self) -> None:
        try:
            from pagevec.stores.kernel import compare_bits

            self._compiled = lambda planes, starts, probe: compare_bits(
                planes, starts, probe.signs, probe.masks, probe.weights
            )
        except Exception as error:  # numba raises what it finds: of disks, of other versions
            self._is_there = False
            log.warning("numba compiled nothing (%s): sign bits are compared in numpy", error)


_choice = _Choice()
choose_comparison = _choice.comparison
"""Return what compares so many pages best."""
has_machine_code = _choice.can_compile
"""Whether machine code compares pages once there are many."""
