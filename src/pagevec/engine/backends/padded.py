"""One forward pass: a batch of prepared inputs in, ragged multi-vectors out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from pagevec.engine.backends.preprocess import ModelInput, Prepared, collate
from pagevec.engine.models.loader import LoadedModel
from pagevec.errors import InternalError
from pagevec.types import MultiVector


class Runner(Protocol):
    """Runs a model on batches."""

    def forward(self, batch: Sequence[Prepared]) -> list[MultiVector]:
        """Return one float32 array (tokens, dim) of unit rows for each input, in order.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
            InternalError: the model gave numbers that are not finite.
        """
        ...


class PaddedRunner:
    """Runs a model of colpali-engine, which gives (inputs, tokens, dim) with padding rows zero."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._dtype = next(loaded.model.parameters()).dtype

    @torch.inference_mode()
    def forward(self, batch: Sequence[Prepared]) -> list[MultiVector]:
        """See `Runner.forward`."""
        known = [one for one in batch if isinstance(one, ModelInput)]
        tensors = collate(known, self._loaded.padding_side, self._loaded.pad_token_id)
        on_device = {name: self._on_device(tensor) for name, tensor in tensors.items()}
        vectors = self._loaded.model(**on_device, use_cache=False)
        return ragged(vectors[on_device["attention_mask"].bool()], [one.tokens for one in batch])

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._loaded.device, dtype, non_blocking=True)


def runner_of(loaded: LoadedModel) -> Runner:
    """Return what runs `loaded`: without padding where its family can be packed."""
    if not loaded.packs:
        return PaddedRunner(loaded)
    from pagevec.engine.backends.packed.backend import PackedRunner

    return PackedRunner(loaded)


def ragged(vectors: torch.Tensor, lengths: Sequence[int]) -> list[MultiVector]:
    """Bring packed `vectors` (sum of lengths, dim) home as unit rows, float32, cut into inputs.

    Raises:
        InternalError: not all numbers are finite.
    """
    unit = torch.nn.functional.normalize(vectors.to(torch.float32), dim=-1).cpu().numpy()
    if not np.isfinite(unit).all():
        raise InternalError("the model gave numbers that are not finite")
    ends = np.cumsum(lengths)[:-1]
    return [np.ascontiguousarray(one) for one in np.split(unit, ends)]
