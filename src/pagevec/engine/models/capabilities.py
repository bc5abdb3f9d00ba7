"""From which compute capability on a GPU has which numbers. Deployments ask, without torch."""

Capability = tuple[int, int]
"""NVIDIA's version of what a GPU can do, such as (8, 9) for an L4."""

BFLOAT16_FROM: Capability = (8, 0)
"""Ampere (A100, A10): older GPUs, such as a T4, compute in float16."""

FLASH_ATTENTION_FROM: Capability = (8, 0)
"""Ampere: what torch's own FlashAttention needs."""

FP8_FROM: Capability = (8, 9)
"""Ada (L4, L40S), the first with FP8 matrix products."""


def show(capability: Capability) -> str:
    """Return a compute capability as NVIDIA writes it, such as 8.9."""
    return "{}.{}".format(*capability)


def dtype_for(capability: Capability) -> str:
    """Return what the dtype `auto` means on a GPU of this compute capability."""
    return "bfloat16" if capability >= BFLOAT16_FROM else "float16"
