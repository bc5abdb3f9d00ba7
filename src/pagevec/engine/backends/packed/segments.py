"""Attention over a pack: each sequence attends to itself alone, without padding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention

from pagevec.engine.models.capabilities import FLASH_ATTENTION_FROM
from pagevec.engine.models.devices import compute_capability


@dataclass(frozen=True)
class Run:
    """Neighbouring sequences of equal length, which attention can treat as a batch.

    Attributes:
        start: first token of the first sequence.
        end: token after the last sequence.
        count: number of sequences.
    """

    start: int
    end: int
    count: int


@dataclass(frozen=True, eq=False)
class Segments:
    """The sequences of a pack.

    Attributes:
        lengths: tokens of each sequence, in order.
        device: where the pack is.
    """

    lengths: tuple[int, ...]
    device: torch.device

    @classmethod
    def concatenate(cls, packs: Iterable["Segments"]) -> "Segments":
        """Return the segments of several packs, one behind another."""
        first, *others = packs
        if not others:
            return first
        return cls(tuple(n for one in (first, *others) for n in one.lengths), first.device)

    @cached_property
    def cu_seqlens(self) -> torch.Tensor:
        """Cumulative sequence lengths, from 0: int32 (sequences + 1,)."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return ends.to(torch.int32).to(self.device, non_blocking=True)

    @cached_property
    def max_seqlen(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Neighbouring sequences of equal length."""
        return tuple(self._runs())

    def split(self, max_tokens: int) -> Iterator[tuple[slice, "Segments"]]:
        """Split the pack between sequences, into parts of `max_tokens` or one longer sequence.

        Yields:
            The tokens of a part, and its segments.
        """
        piece: list[int] = []
        start = end = 0
        for length in self.lengths:
            if piece and end + length - start > max_tokens:
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
    """Return scaled dot-product attention within each sequence.

    Args:
        query: (tokens, heads, dim).
        key: (tokens, heads or fewer, dim); with fewer, each serves several heads of the query.
        value: of the shape of `key`.
        segments: the sequences.
        causal: whether a token attends only to itself and the tokens before it.

    Returns:
        (tokens, heads x dim).
    """
    if _has_flash_attention(query):
        return _attend_varlen(query, key, value, segments, causal).flatten(1)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    attended = [
        _attend_batch([one[run.start : run.end] for one in (query, key, value)], run.count, causal)
        for run in segments.runs
    ]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def _attend_varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, causal: bool
) -> torch.Tensor:
    # What torch.nn.attention.varlen wraps: its Python signature differs by version (2.10 and 2.11
    # know neither window_size nor enable_gqa), that of the operator begins alike in 2.10 to 2.13.
    bounds, longest = segments.cu_seqlens, segments.max_seqlen
    attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, bounds, bounds, longest, longest, 0.0, causal, False
    )[0]
    return attended


def _has_flash_attention(query: torch.Tensor) -> bool:
    """Whether torch's FlashAttention takes it: 16 bits, on Ampere (A100, A10) or newer."""
    if query.dtype not in (torch.bfloat16, torch.float16):
        return False
    capability = compute_capability(query.device)
    return capability is not None and capability >= FLASH_ATTENTION_FROM


def _attend_batch(qkv: list[torch.Tensor], count: int, causal: bool) -> torch.Tensor:
    """Attend within `count` sequences of equal length, as one batch."""
    query, key, value = (
        one.view(count, -1, one.shape[1], one.shape[2]).transpose(1, 2) for one in qkv
    )
    attended = scaled_dot_product_attention(query, key, value, is_causal=causal)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)
