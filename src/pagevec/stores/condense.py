"""Near-duplicate vectors of a page are kept once, and a map says for whom each one stands.

Much of a page is blank paper, whose visual tokens have almost equal vectors. Of those with a cosine
of at least a threshold one is kept; the page's `token_rows` lead from every token to it, so that
similarity maps have all cells.

What a search may lose: for a vector `q` of a query, `v` of the page, and `k` kept for it, all of
unit length, |q.v - q.k| <= |v - k| = sqrt(2 - 2 v.k). That is 0.1 at a cosine of 0.995, and not
0.005: a cosine goes with the square of the distance. It is reached only where `q` points along
the difference, which pages and queries do not do; what they lose is in docs/benchmarks.md.
"""

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import InvalidRequest
from pagevec.stores.base import Store
from pagevec.types import ModelInfo, MultiVector, Page, TokenRows

OFF = 2.0
"""The threshold of stores that keep all vectors: a cosine that no two vectors have."""

MEASURED: Mapping[tuple[str, str | None], float] = {("bundled", "drawn-3"): 0.995}
"""Thresholds of new stores, by name and revision of the model: those that were measured to lose
nothing (docs/benchmarks.md)."""

_BLOCK = 2048
"""Vectors that are compared with each other; those of a longer page in as many blocks. Their
cosines take 16 MiB."""

_COUNT = struct.Struct("<I")


def condense(vectors: MultiVector, threshold: float) -> tuple[NDArray[np.intp], TokenRows]:
    """Choose the vectors that stand for all others: a greedy cover.

    The vector that stands for most others is taken first, then the one that stands for most of
    those that are left, and so on: that keeps fewer than taking them as they come. Each vector
    that is dropped is then represented by the most similar one of its block. Equal vectors give
    equal choices: of several that stand for as many, the first is taken.

    Args:
        vectors: float32 (n, dim), rows of unit length.
        threshold: the cosine from which on one vector stands for another.

    Returns:
        The positions of the vectors to keep, (kept,), in the order in which they first stand for
        one; and for each vector the place in `kept` of the one that stands for it, int32 (n,).
        Their cosine is at least `threshold`, to the precision of float32.
    """
    blocks = range(0, len(vectors), _BLOCK)
    stand_ins = [first + _cover(vectors[first : first + _BLOCK], threshold) for first in blocks]
    chosen = np.concatenate([np.empty(0, np.intp), *stand_ins])
    # np.unique sorts: its places are turned into those of the first appearance.
    positions, firsts, inverse = np.unique(chosen, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return positions[order], places[inverse.reshape(-1)]


def condense_page(page: Page, threshold: float) -> Page:
    """Return `page` with near-duplicate vectors kept once, tile by tile.

    A page that is condensed already stays as it is, and so does every page at `OFF`.
    """
    if page.token_rows is not None or threshold >= OFF:
        return page
    tiles, kept, rows, count = page.tiles, list[MultiVector](), list[TokenRows](), 0
    for tile in tiles:
        positions, places = condense(tile, threshold)
        kept.append(tile[positions])
        rows.append(places + np.int32(count))
        count += len(positions)
    return replace(page, vectors=np.concatenate(kept), token_rows=np.concatenate(rows))


def error_bound(threshold: float) -> float:
    """Return by how much the product of a unit vector with a dropped one changes, at most."""
    return math.sqrt(max(0.0, 2 - 2 * threshold))


def agree_on_threshold(store: Store, model: ModelInfo, wanted: float | None = None) -> float:
    """Return the threshold of a store, which is chosen before it has pages: call this to add some.

    Args:
        store: keeps the threshold. One that has pages and none keeps all vectors.
        model: embeds the pages. A new store takes the threshold that was measured with it; `OFF`
            where none was.
        wanted: what a user has asked for, instead.

    Raises:
        InvalidRequest: the store has another threshold than `wanted`.
    """
    known = store.condensing()
    if known is None and store.count():
        known = OFF
    if known is None:
        known = MEASURED.get((model.model, model.revision), OFF) if wanted is None else wanted
        store.save_condensing(known)
        if store.condensing() is None:  # a user's own, which may keep no maps either
            known = OFF
    if wanted not in (None, known):
        raise InvalidRequest(
            f"the store {describe_threshold(known)}: `pagevec store compact` changes that, with "
            "all of its pages"
        )
    return known


def describe_threshold(threshold: float) -> str:
    """Say what a store does that has this threshold."""
    if threshold >= OFF:
        return "keeps all vectors"
    return f"keeps one of vectors whose cosine is {threshold:g} or above"


def pack_rows(rows: TokenRows) -> bytes:
    """Return the map of a page's tokens, int32 (tokens,), as bytes: about 0.3 % of its vectors.

    First comes which tokens meet a row that none before them has met, then the rows of the others.

    Raises:
        ValueError: the rows are not numbered in the order of their first token.
    """
    news = _find_new(rows)
    others = rows[~news].astype("<u4").view(np.uint8).reshape(-1, 4)
    content = np.packbits(news).tobytes() + others.T.tobytes()  # equal bytes beside each other
    return _COUNT.pack(len(rows)) + zlib.compress(content, 9)


def unpack_rows(packed: bytes, count: int) -> TokenRows:
    """Return the map that `pack_rows` made into bytes, which may be damaged: int32 (tokens,).

    Args:
        packed: bytes of a store.
        count: how many vectors the page has.

    Raises:
        ValueError: the bytes are no map to so many vectors.
    """
    try:
        [tokens] = _COUNT.unpack_from(packed)
        width = -(-tokens // 8)
        size = width + 4 * (tokens - count)
        reader = zlib.decompressobj()
        content = reader.decompress(packed[_COUNT.size :], max(1, size + 1))
    except (struct.error, zlib.error):
        raise ValueError("the map of its tokens is damaged") from None
    if len(content) != size or not reader.eof:
        raise ValueError("the map of its tokens is cut off, or that of another page")
    news = np.unpackbits(np.frombuffer(content, np.uint8, width), count=tokens).astype(bool)
    if np.count_nonzero(news) != count:
        raise ValueError("the map of its tokens does not lead to all of its vectors")
    planes = np.frombuffer(content, np.uint8, offset=width).reshape(4, -1)
    met = np.cumsum(news, dtype=np.int32)
    rows = met - 1
    rows[~news] = np.ascontiguousarray(planes.T).view("<u4")[:, 0].astype(np.int32)
    if np.any(rows < 0) or np.any(rows >= met):
        raise ValueError("the map of its tokens leads to vectors that it has not")
    return rows


def _cover(vectors: MultiVector, threshold: float) -> NDArray[np.intp]:
    """Return for each vector the position of the one that stands for it, (n,)."""
    # Vectors that came in int8 are not quite of unit length.
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = units @ units.T
    np.fill_diagonal(cosines, 2.0)  # each stands for itself first, whatever else is equal
    near = cosines >= threshold
    gains = near.sum(axis=1)
    is_left = np.ones(len(vectors), bool)
    kept = []
    while is_left.any():
        best = int(gains.argmax())
        if gains[best] == 1:  # all that are left stand for themselves alone
            kept += np.flatnonzero(is_left).tolist()
            break
        kept.append(best)
        covered = np.flatnonzero(near[best] & is_left)
        is_left[covered] = False
        gains -= near[covered].sum(axis=0)
    positions = np.sort(np.array(kept, np.intp))
    stand_ins: NDArray[np.intp] = positions[cosines[:, positions].argmax(axis=1)]
    return stand_ins


def _find_new(rows: TokenRows) -> NDArray[np.bool_]:
    """Return which tokens meet a row that none before them has met, bool (tokens,)."""
    before = np.maximum.accumulate(np.concatenate([np.full(1, -1, np.int32), rows]))[: len(rows)]
    news: NDArray[np.bool_] = rows > before
    if np.any(rows[news] != np.arange(np.count_nonzero(news))) or np.any(rows < 0):
        raise ValueError("the rows of a page's tokens are not numbered as they are met")
    return news
