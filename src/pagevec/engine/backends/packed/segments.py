"""Packed attention: each sequence of a pack attends to itself alone, and nothing is padded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Run:
    """Neighbours of equal length: `count` sequences from token `start` to before token `end`."""

    start: int
    end: int
    count: int


@dataclass(frozen=True, eq=False)
class Segments:
    """The sequences of a pack.

    Attributes:
        lengths: of each, in their order; device: where the pack is.
    """

    lengths: tuple[int, ...]
    device: torch.device

    @classmethod
    def joined(cls, parts: Iterable["Segments"]) -> "Segments":
        """Return the sequences of several packs, one behind another."""
        known = list(parts)
        if len(known) == 1:
            return known[0]
        return cls(tuple(length for one in known for length in one.lengths), known[0].device)

    @cached_property
    def bounds(self) -> torch.Tensor:
        """Where sequences begin, and the end: int32 (sequences + 1,)."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return ends.to(torch.int32).to(self.device, non_blocking=True)

    @cached_property
    def longest(self) -> int:
        """The length of the longest."""
        return max(self.lengths)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Neighbours of equal length, which are one batch."""
        return tuple(self._runs())

    def pieces(self, most: int) -> Iterator[tuple[slice, "Segments"]]:
        """Cut the pack into pieces of whole sequences, of `most` tokens or a single longer one."""
        piece: list[int] = []
        start = end = 0
        for length in self.lengths:
            if piece and end + length - start > most:
                yield slice(start, end), Segments(tuple(piece), self.device)
                piece, start = [], end
            piece.append(length)
            end += length
        yield slice(start, end), Segments(tuple(piece), self.device)

    def _runs(self) -> Iterator[Run]:
        start = 0
        for length, equal in groupby(self.lengths):
            count = len(list(equal))
            yield Run(start, start + count * length, count)
            start += count * length


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    causal: bool = False,
) -> torch.Tensor:
    """Return the attention (tokens, heads x dim) of `query` (tokens, heads, dim) in each sequence.

    `key` and `value` (tokens, fewer heads, dim) may serve several heads of the query each.
    """
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _in_one_call(query, key, value, segments, causal).flatten(1)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    attended = [
        _equal_lengths([one[run.start : run.end] for one in (query, key, value)], run.count, causal)
        for run in segments.runs
    ]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def _in_one_call(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, causal: bool
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(
        query,
        key,
        value,
        segments.bounds,
        segments.bounds,
        segments.longest,
        segments.longest,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)  # noqa: S101 - a pair only where asked for
    return attended


def _equal_lengths(qkv: list[torch.Tensor], count: int, causal: bool) -> torch.Tensor:
    """Attend in `count` sequences of equal length as one batch."""
    query, key, value = (
        one.view(count, -1, one.shape[1], one.shape[2]).transpose(1, 2) for one in qkv
    )
    attended = scaled_dot_product_attention(query, key, value, is_causal=causal)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)
