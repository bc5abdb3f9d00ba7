"""Comparing sign bits in machine code, compiled by numba when this module is imported.

Measured beside numpy, a page of 690 vectors with a query of 34, one core: 8 and 60 us with AVX-512,
which counts bits by itself, 17 and 60 us with AVX2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

_PLANES = types.Array(types.uint64, 2, "A", readonly=True)
_SIGNATURE = types.float32[::1](
    _PLANES, types.int64[::1], types.uint64[:, ::1], types.uint64[:, ::1], types.float32[::1]
)


@intrinsic  # type: ignore[untyped-decorator]
def _count_bits(_: Any, word: Any) -> Any:
    """Return how many bits of a word are set: LLVM's `ctpop`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any]
    try:
        compiled = njit(_SIGNATURE, nogil=True, cache=True)(function)
    except Exception:  # no folder to keep it in, a full one, or one with damaged files
        compiled = njit(_SIGNATURE, nogil=True)(function)
    return compiled


@_compile
def compare_bits(
    planes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    signs: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return distances as `probe.Comparison` says, from the parts of its probe."""
    words, rows = planes.shape
    pages = len(starts)
    ends = np.append(starts[1:], rows)
    longest = np.max(ends - starts)
    page = np.empty((words, longest), np.uint64)  # stays in the core's cache
    different = np.empty(longest, np.uint64)
    distances = np.zeros(pages, np.float32)
    for place in range(pages):
        start, count = starts[place], ends[place] - starts[place]
        for word in range(words):
            for row in range(count):
                page[word, row] = planes[word, start + row]
        for vector in range(len(signs)):
            different[:count] = 0
            for word in range(words):
                sign, mask = signs[vector, word], masks[vector, word]
                for row in range(count):
                    different[row] += _count_bits((page[word, row] ^ sign) & mask)
            least = different[0]
            for row in range(count):
                least = min(least, different[row])
            distances[place] += weights[vector] * np.float32(least)
    return distances
