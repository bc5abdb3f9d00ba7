"""FlashAttention without a GPU: what its C++ checks, and its definition in float64."""

from itertools import pairwise

import torch


def require(holds: bool, what: str) -> None:
    """Raise a RuntimeError that says `what`, as PyTorch's checks do, unless it holds."""
    if not holds:
        raise RuntimeError(what)


def require_form(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Check dtypes, devices, strides and shapes; `bounds` are the cumulative lengths of both."""
    half = (torch.float16, torch.bfloat16)
    require(query.dtype in half, "FlashAttention only support fp16 and bf16 data type")
    for one in (query, key, value):
        require(one.is_cuda, "query, key and value must be on CUDA")
        require(one.dtype == query.dtype, "query, key and value must have the same dtype")
        require(one.stride(-1) == 1, "Input tensor must have contiguous last dimension")
        # The kernel needs rows that begin at multiples of 16 bytes, and does not check it.
        aligned = all(step % 8 == 0 for step in (*one.stride()[:-1], one.storage_offset()))
        require(aligned, f"rows do not begin at multiples of 16 bytes: {one.stride()}")
    for one in bounds:
        require(one.is_cuda, "cu_seqlens must be on CUDA")
        require(one.dtype == torch.int32, "cu_seqlens must have dtype int32")
        require(one.is_contiguous() and one.dim() == 1, "cu_seqlens must be contiguous")
    heads, dim = query.shape[1:]
    require(dim <= 256 and dim % 8 == 0, "head dimension: at most 256, a multiple of 8")
    require(heads % key.shape[1] == 0, "heads of the query must be a multiple of the key's")
    require(key.shape == value.shape, "key and value must have the same shape")


def attend_exactly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: list[int], causal: bool
) -> torch.Tensor:
    """Return attention within each sequence, by its definition, in float64."""
    out, groups = torch.empty_like(query), query.shape[1] // key.shape[1]
    for start, end in pairwise(bounds):
        q, k, v = (one[start:end].double().transpose(0, 1) for one in (query, key, value))
        k, v = (one.repeat_interleave(groups, 0) for one in (k, v))
        scores = q @ k.transpose(1, 2) / query.shape[2] ** 0.5
        if causal:
            later = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        # The kernel rounds the weights to the dtype of the values before it multiplies them.
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        rounded = weights.to(query.dtype).double() @ v / weights.sum(-1, keepdim=True)
        out[start:end] = rounded.transpose(0, 1).to(query.dtype)
    return out
