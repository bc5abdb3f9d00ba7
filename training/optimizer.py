"""Muon for the layers' matrices, AdamW for everything else.

Muon (Keller Jordan and others, 2024) makes an update's singular values equal by a few
Newton-Schulz steps. torch's own computes them in bfloat16, which a CPU without such instructions
does slowly, and every process would repeat them; here each process takes its share.
"""

import torch
import torch.distributed as dist
from torch import nn

_MOMENTUM, _DECAY = 0.95, 0.05
_STEPS = 4


class Muon:
    """Updates matrices; those that stack several (queries, keys, values) are split first."""

    def __init__(self, matrices: list[tuple[nn.Parameter, int]]) -> None:
        self._matrices = matrices
        self.momentum = [torch.zeros_like(matrix) for matrix, _ in matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Make a step with the current gradients, which must be equal in all processes."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates = []
        for number, (matrix, parts) in enumerate(self._matrices):
            if matrix.grad is None:  # this stage does not train it
                continue
            self.momentum[number].lerp_(matrix.grad, 1 - _MOMENTUM)
            mine = number % world == rank
            updates.append(self._update(number, parts) if mine else torch.zeros_like(matrix))
        together(updates)
        trained = [pair for pair in self._matrices if pair[0].grad is not None]
        for (matrix, parts), update in zip(trained, updates, strict=True):
            height, width = matrix.shape[0] // parts, matrix.shape[1]
            matrix.mul_(1 - rate * _DECAY)
            matrix.add_(update, alpha=-rate * 0.2 * max(height, width) ** 0.5)

    def _update(self, number: int, parts: int) -> torch.Tensor:
        ahead = torch.lerp(self._matrices[number][0].grad, self.momentum[number], _MOMENTUM)
        return torch.cat([_orthogonal(part) for part in ahead.chunk(parts)])


def together(tensors: list[torch.Tensor]) -> None:
    """Sum the tensors over all processes, in place, in one exchange."""
    if not dist.is_initialized():
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x
